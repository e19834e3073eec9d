# SPDX-License-Identifier: Apache-2.0
"""Does one whole run: lets the silos join, runs the rounds, and completes the run's folder."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from fedcpsc.aggregation.rule import RULES
from fedcpsc.choices import check_mixture
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.aggregation import class_counts
from fedcpsc.distillation.evaluate import Ensemble, SiloFacts, evaluate_ensemble
from fedcpsc.distillation.events import EventLog, check_tensorboard
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.information import Window
from fedcpsc.distillation.loop import RoundLoop
from fedcpsc.distillation.outcome import describe_details, describe_run, save_pictures, student_confusion
from fedcpsc.distillation.query_scheduler import QueryScheduler
from fedcpsc.distillation.round_schedule import OverlapPolicy
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.distillation.transport import SiloId, SiloTransport, Traffic
from fedcpsc.errors import FederationError, explain
from fedcpsc.files import drop_half_a_line, durable, explained_writes, write_whole
from fedcpsc.logs import fields
from fedcpsc.models.device import choose_device
from fedcpsc.models.registry import SMALLEST_SIDE
from fedcpsc.protocol.messages import AnswerForm, Description
from fedcpsc.protocol.query_size import images_of_bytes
from fedcpsc.protocol.recipe import check_sizes
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.claim import check_run_folder
from fedcpsc.runs.layout import (
    BANK_FOLDER,
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    DETAILS_FILE,
    GENERATOR_FILE,
    METRICS_FILE,
    RESULT_FILE,
    STUDENT_FILE,
    TENSORBOARD_FOLDER,
    TIMELINE_FILE,
)
from fedcpsc.runs.metrics import MetricsLine, append_line
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.timeline import Timeline
from fedcpsc.typed_yaml import save_config

__all__ = ["SiloFacts", "answer_forms", "check_federation", "distill"]

log = logging.getLogger("fedcpsc.server")

_LOGGED = ("round", "bank", "entropy", "waiting_s", "seconds")


def distill(
    config: RunConfig,
    transport: SiloTransport,
    run_dir: Path,
    *,
    resume: bool = False,
    evaluation: ImageSet | None = None,
    silo_facts: Mapping[SiloId, SiloFacts] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> RunResult:
    """Runs the whole distillation and leaves in `run_dir` what the README lists; returns its result.

    Args:
        transport: way to the silos; `connect` may have been called already (it is idempotent).
        run_dir: folder of the run, created; with `resume` it holds an earlier attempt at the same configuration.
        evaluation: held-out real images; they are only looked at.
        silo_facts: the simulation's measuring instrument; None in a deployment.
        tell: function called with one line for each event an operator should know.
        clock: source of seconds that never run backwards; the run and its deadlines are timed by it.

    Raises:
        FederationError: too few silos, silos that do not fit together, or none that answers.
        RunError, BankError: the folder holds another run, or files that are damaged; nothing has been written then.
        ConfigError: a value that only the silos show to be wrong.
    """
    check_mixture(config.synthesis.prior)
    rule = RULES.get(config.aggregation.rule)
    if config.output.tensorboard:
        check_tensorboard()
    check_run_folder(run_dir, config, resume=resume)
    device = choose_device(config.runtime.device)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    joined = transport.connect(config.silos.count, config.queries.hello_timeout_s)
    classes, image_shape = check_federation(joined, config, evaluation)
    forms = answer_forms(joined, config.queries.form)
    silos = sorted(joined)
    counts = class_counts(rule, silos, {silo: d.class_report for silo, d in joined.items()}, classes)

    run_dir.mkdir(parents=True, exist_ok=True)
    with explained_writes(run_dir):
        save_config(config, run_dir / CONFIG_FILE)
    bank = AnswerBank(run_dir / BANK_FOLDER, image_shape, classes, silos)
    timeline = Timeline(run_dir / TIMELINE_FILE, resumed=resume, clock=clock)
    scheduler = QueryScheduler(
        transport,
        {silo: joined[silo] for silo in silos},
        bank,
        forms,
        config.aggregation.denoise,
        config.output.name,
        tell,
        timeline,
        OverlapPolicy.of(config.queries).in_flight,
        images_of_bytes(config.queries.max_megabytes, image_shape),
    )
    denoise = config.aggregation.denoise
    windows = {silo: Window(forms[silo], joined[silo].noise_sigma, denoise) for silo in silos}
    targets = TargetKeeper(bank, config.aggregation, counts, windows)
    # what the silos' answers alone tell of them is known at the end
    early = not rule.learns_from_answers
    ensemble = _ensemble(config, silos, evaluation, silo_facts, counts) if early else None
    metrics = _metrics(run_dir, resume=resume)

    events = EventLog(run_dir / TENSORBOARD_FOLDER, resumed=resume) if config.output.tensorboard else None

    def progress(line: MetricsLine) -> None:
        if ensemble is not None:
            line["ensemble_accuracy"] = ensemble.accuracy
        with explained_writes(metrics):
            append_line(metrics, line)
        kept = {name: value for name, value in line.items() if name in _LOGGED}
        sentence = "a round is done" if line["phase"] == "round" else "a part of the final fit is done"
        log.info(sentence, extra=fields(run=config.output.name, **kept))
        if events is not None:
            events.line(line, bank)

    try:
        with fitting(config, bank, device) as fit:
            engine = RoundLoop(
                config,
                bank,
                scheduler,
                targets,
                timeline,
                fit=fit,
                device=device,
                folder=run_dir / CHECKPOINT_FOLDER,
                evaluation=evaluation,
                progress=progress,
            )
            engine.run()
    finally:
        scheduler.close()
        if events is not None:
            events.close()
    if not early:
        ensemble = _ensemble(config, silos, evaluation, silo_facts, targets.counts)
    with explained_writes(run_dir):
        return _leave(run_dir, engine, transport.traffic, ensemble, silo_facts)


def _metrics(run_dir: Path, *, resume: bool) -> Path:
    """The file of progress lines: as it is, but for half a line, or anew."""
    metrics = run_dir / METRICS_FILE
    with explained_writes(metrics):
        if resume:
            drop_half_a_line(metrics)
        else:
            metrics.write_text("")
    return metrics


def _leave(
    run_dir: Path,
    engine: RoundLoop,
    traffic: Traffic,
    ensemble: Ensemble | None,
    silo_facts: Mapping[SiloId, SiloFacts] | None,
) -> RunResult:
    """Writes what a finished run leaves; the result last, and returned."""
    _save_tensors(run_dir / STUDENT_FILE, engine.student.network)
    if engine.generator is not None:
        _save_tensors(run_dir / GENERATOR_FILE, engine.generator)
    student = student_confusion(engine)
    details = describe_details(engine, student, ensemble)
    result = describe_run(engine, traffic, student, ensemble, silo_facts, details)
    write_whole(run_dir / DETAILS_FILE, json.dumps(details) + "\n")
    save_pictures(run_dir, engine.bank, result)
    write_whole(run_dir / RESULT_FILE, json.dumps(result, indent=2) + "\n")
    return result


def check_federation(
    joined: Mapping[SiloId, Description], config: RunConfig, evaluation: ImageSet | None
) -> tuple[int, tuple[int, int, int]]:
    """K and (C, H, W), on which all silos agree.

    Raises:
        FederationError: too few joined, they disagree, or their images are too small for a student.
        ProtocolError: their images cannot be asked about by recipe.
    """
    wanted = max(1, round(config.queries.quorum * config.silos.count))
    if len(joined) < wanted:
        remedy = "start the missing silos, raise queries.hello_timeout_s, or lower queries.quorum"
        constraint = f"at least {wanted} of {config.silos.count} must join within {config.queries.hello_timeout_s:g} s"
        raise FederationError(explain("silos joined", sorted(joined), constraint, remedy))
    for what, values in (
        ("classes", {silo: d.classes for silo, d in joined.items()}),
        ("image_shape", {silo: d.image_shape for silo, d in joined.items()}),
    ):
        if len(set(values.values())) > 1:
            remedy = "let the silos' owners agree on one, or leave out those that differ"
            raise FederationError(explain(what, values, "must be the same at every silo", remedy))
    any_silo = next(iter(joined.values()))
    if min(any_silo.image_shape[1:]) < SMALLEST_SIDE:
        constraint = f"sides must be of at least {SMALLEST_SIDE} pixels: no student takes smaller images"
        remedy = "let the silos' owners bring teachers of larger images"
        raise FederationError(explain("image_shape", any_silo.image_shape, constraint, remedy))
    if config.queries.recipes:
        synthesis = config.synthesis
        check_sizes(any_silo.image_shape, any_silo.classes, synthesis.latent, synthesis.width)
    if evaluation is not None and evaluation.image_shape != any_silo.image_shape:
        remedy = "set data.image_size and data.channels to what the silos take"
        constraint = f"must be the silos' image_shape {any_silo.image_shape}"
        raise FederationError(explain("evaluation images", evaluation.image_shape, constraint, remedy))
    return any_silo.classes, any_silo.image_shape


def answer_forms(joined: Mapping[SiloId, Description], wanted: str) -> dict[SiloId, AnswerForm]:
    """The form each silo is asked for.

    Args:
        wanted: value of `queries.form`: one form for all, or `best` for the richest of each silo's own.

    Raises:
        FederationError: a silo's policy does not offer the form.
    """
    if wanted == "best":
        return {silo: next(form for form in AnswerForm if form in d.forms) for silo, d in joined.items()}
    form = AnswerForm(wanted)
    for silo, description in joined.items():
        if form not in description.forms:
            offered = [f.value for f in description.forms]
            remedy = "ask for a form that every silo's policy offers, or for the best of each: queries.form=best"
            raise FederationError(explain("queries.form", form.value, f"{silo} offers {offered}", remedy))
    return dict.fromkeys(joined, form)


def _ensemble(
    config: RunConfig,
    silos: list[SiloId],
    evaluation: ImageSet | None,
    facts: Mapping[SiloId, SiloFacts] | None,
    counts: npt.NDArray[np.float32] | None,
) -> Ensemble | None:
    if evaluation is None or facts is None or any(silo not in facts for silo in silos):
        return None
    rule = RULES.get(config.aggregation.rule)
    return evaluate_ensemble(facts, silos, evaluation, rule, counts, config.aggregation.smoothing)


def _save_tensors(path: Path, network: torch.nn.Module) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with durable(path) as file:
        file.write(save(tensors))
