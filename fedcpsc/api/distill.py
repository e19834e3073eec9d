# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc.distill`: one student from the answers of a federation of this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from torch import nn

from fedcpsc.api.arrays import Labelled, as_image_set
from fedcpsc.api.callbacks import Callback, RunStart, Told
from fedcpsc.api.federation import Federation
from fedcpsc.api.places import draw_report, place_of_run
from fedcpsc.api.run import Run
from fedcpsc.api.settings import Settings, StudentLike, run_config
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.runs.claim import Existing, claim, finished
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.simulated.one_process import attempt, run_over

__all__ = ["OnExisting", "distill"]

OnExisting: TypeAlias = Literal["refuse", "resume", "overwrite"]


def distill(
    federation: Federation,
    *,
    answers: int | None = None,
    rounds: int | None = None,
    student: StudentLike | None = None,
    held_out: Labelled | None = None,
    seed: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    existing: OnExisting = "refuse",
    config: Settings | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Asks the silos, fits a student to their answers, and leaves a run's folder with all that a run leaves.

    Nothing of the process is changed: torch's random streams and number of threads, logging and the models are as they
    were. Several runs may go on in threads of one process, also over one federation.

    Args:
        federation: silos, as `fedcpsc.simulate` returns them.
        answers: number of images that each silo is asked about, >= 1; None: the settings' own, else 5,000.
        rounds: number of rounds that they are spread over, >= 1; None: the settings' own, else 20.
        student: what is fitted: the name of an architecture; fields of the section `student`, as {"width": 16}; or a
            module of your own, float32 [B, C, H, W] with pixels in [-1, 1] -> logits [B, K], of which a copy is fitted
            from the weights that it has. None: the settings' own, else a convnet of width 32.
        held_out: real images uint8 [N, C, H, W] and their labels, to measure with; they never steer anything.
        seed: seed of everything random but privacy noise; None: the settings' own, else 1.
        folder: folder of the run; None makes a temporary one that goes with the returned object (`Run.save` keeps it).
        existing: what to do where the folder holds a run: "refuse"; "resume" goes on with it, and pays for nothing
            twice; "overwrite" moves it aside.
        config: further settings of a run: a mapping, as {"queries.form": "label"}, or a YAML file; arguments go first.
        callbacks: what to call while the run goes on, see `Callback`.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the held-out images are not as they must be.
        RunError: the folder holds something else, or the run failed.
        FederationError: no silo answered, or the silos do not fit together.
        SiloError: the federation is closed.
    """
    federation.check_open()
    evaluation = None
    if held_out is not None:
        sets = federation.label_sets
        evaluation = as_image_set(held_out, "held_out", sets.classes, sets.names, federation.image_shape)
    with place_of_run(folder, paid=True) as (where, remove):
        settings = run_config(
            config,
            silos=len(federation.members),
            silos_folder="temporary" if federation.temporary else federation.folder,
            folder=where,
            held_out=evaluation is not None,
            answers=answers,
            rounds=rounds,
            student=student,
            seed=seed,
        )
        module = student if isinstance(student, nn.Module) else None
        resume = _claimed(where, existing)
        told, said = Told(callbacks), list[str]()
        if resume and finished(where, settings) is not None:
            return Run(where, federation, remove, module)
        try:
            with attempt(where):
                told.start(RunStart(where, settings, federation.names, resume))
                run_over(
                    settings,
                    where,
                    [member.gatekeeper for member in federation.members],
                    resume=resume,
                    evaluation=evaluation,
                    silo_facts={member.manifest.silo: member.facts for member in federation.members},
                    on_line=told.line,
                    tell=said.append,
                    student=module,
                )
        except BaseException as error:
            told.failure(error)
            raise
        draw_report(where)
        run = Run(where, federation, remove, module, said)
        told.end(run.result)
        return run


def _claimed(where: Path, existing: str) -> bool:
    """Makes the folder ready; returns whether a run is resumed in it.

    Raises:
        ConfigError: `existing` is no such word.
        RunError: it holds a run that is to be left alone, or cannot be moved aside.
    """
    words = [choice.value for choice in Existing]
    if existing not in words:
        raise ConfigError(explain("existing", existing, "is unknown", f"say one of {', '.join(words)}"))
    if existing == "refuse" and (where / CONFIG_FILE).exists():
        remedy = "go on with existing='resume', start anew with existing='overwrite', or name another folder"
        raise RunError(explain("folder", str(where), "holds a run already", remedy))
    return claim(where, Existing(existing))
