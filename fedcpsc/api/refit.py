# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc.refit`: another student of what a run has banked, without one answer more."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

from fedcpsc.api.arrays import Labelled, as_image_set
from fedcpsc.api.callbacks import Callback, RunStart, Told
from fedcpsc.api.places import draw_report, place_of_run
from fedcpsc.api.run import Run, open_run
from fedcpsc.api.settings import Settings, StudentLike, read_settings, student_fields
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.refit import refit as refit_bank
from fedcpsc.distillation.transport import SiloId
from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.device import torch_threads
from fedcpsc.simulated.answerers import read_answerers
from fedcpsc.simulated.refitting import held_out_images
from fedcpsc.typed_yaml import Tree, set_key, validate

__all__ = ["refit"]


def refit(
    run: Run | str | os.PathLike[str],
    *,
    student: StudentLike | None = None,
    aggregation: str | None = None,
    exclude: Sequence[str] | None = None,
    held_out: Labelled | None = None,
    folder: str | os.PathLike[str] | None = None,
    config: Settings | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Fits another student to the answers that a run has banked. No silo is asked, and no ledger is charged.

    The same configuration gives the same student again, weight by weight.

    Args:
        run: run whose answers are fitted to, finished or not, or its folder; it is left as it is.
        student: what is fitted, as for `distill`; None: what that run fitted.
        aggregation: name of the rule that makes soft targets of the answers; None: that run's.
        exclude: names of silos whose answers are left out; None: those that run left out.
        held_out: real images and their labels, to measure with, as for `distill`; None: those of that run's
            configuration, where it names some.
        folder: folder of the new run; None makes a temporary one that goes with the returned object.
        config: further settings, in a mapping or a file, which concern the fit alone: `student`, `evaluation`,
            `output`, `runtime`, and of `aggregation` the keys rule, robust, smoothing and exclude.
        callbacks: what to call while the fit goes on, see `Callback`.

    Raises:
        ConfigError: a setting is wrong, or changes more than the fit.
        DataError: the held-out images are not as they must be.
        RunError: `run` is no run or has no answers, the folder holds something, or the fit diverges.
        BankError: the bank is damaged.
        FederationError: the rule needs class counts that a silo did not share.
    """
    source = run if isinstance(run, Run) else open_run(run)
    module = student if isinstance(student, nn.Module) else None
    if student is None and source.own_student:
        module = source.module
        if module is None:
            shown = "that run fitted a module of its caller's own, which is not at hand"
            raise ConfigError(explain("student", None, shown, "give one, or the name of an architecture"))
    with place_of_run(folder, paid=False) as (where, remove):
        settings = _settings(source, where, student, aggregation, exclude, config)
        told, said = Told(callbacks), list[str]()
        evaluation, facts = _to_measure_with(source, settings, held_out, said.append)
        try:
            told.start(RunStart(where, settings, source.bank.silos, resumed=False))
            with torch_threads(0):  # `runtime.threads` holds until the fit ends
                refit_bank(
                    source.folder,
                    settings,
                    where,
                    evaluation=evaluation,
                    silo_facts=facts,
                    tell=said.append,
                    progress=told.line,
                    student=module,
                )
        except BaseException as error:
            told.failure(error)
            raise
        draw_report(where)
        made = Run(where, source.federation, remove, module, said)
        told.end(made.result)
        return made


def _settings(
    source: Run,
    where: Path,
    student: StudentLike | None,
    aggregation: str | None,
    exclude: Sequence[str] | None,
    given: Settings | None,
) -> RunConfig:
    """That run's configuration with what is changed."""
    tree: Tree = source.config.model_dump(mode="json")
    for section, values in read_settings(given).items():
        keys = values if isinstance(values, dict) else {"": values}
        for key, value in keys.items():
            set_key(tree, [section, key] if key else [section], value)
    chosen: Tree = {f"student.{key}": value for key, value in student_fields(student).items()}
    chosen |= {"aggregation.rule": aggregation, "aggregation.exclude": None if exclude is None else list(exclude)}
    chosen |= {"output.root": str(where.parent), "output.name": where.name}
    for key, value in chosen.items():
        if value is not None:
            set_key(tree, key.split("."), value)
    return validate(RunConfig, tree, "config")


def _to_measure_with(
    source: Run, settings: RunConfig, held_out: Labelled | None, tell: Callable[[str], None]
) -> tuple[ImageSet | None, Mapping[SiloId, SiloFacts] | None]:
    """Held-out images, the caller's or the configuration's, and the teachers that gave the answers, where at hand."""
    bank, federation = source.bank, source.federation
    if held_out is not None:
        evaluation: ImageSet | None = as_image_set(
            held_out, "held_out", bank.classes, bank.class_names, bank.image_shape
        )
    else:
        evaluation = held_out_images(settings, tell)
    if federation is not None and not federation.closed:
        return evaluation, {member.manifest.silo: member.facts for member in federation.members}
    return evaluation, read_answerers(Path(settings.silos.root).absolute(), source.folder, tell)
