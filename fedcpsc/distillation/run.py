# SPDX-License-Identifier: Apache-2.0
"""Does one whole run: lets the silos join, runs the rounds, and completes the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fedcpsc.aggregation.rule import RULES
from fedcpsc.choices import check_mixture
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.aggregation import class_counts
from fedcpsc.distillation.ending import leave, measure_ensemble
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.events import check_tensorboard
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.information import Window
from fedcpsc.distillation.inheritance import copy_inherited
from fedcpsc.distillation.loop import RoundLoop
from fedcpsc.distillation.outcome import Outcome
from fedcpsc.distillation.participants import Participants, earlier_answers, take_part
from fedcpsc.distillation.progress_log import progress_log
from fedcpsc.distillation.query_scheduler import QueryScheduler
from fedcpsc.distillation.round_schedule import OverlapPolicy
from fedcpsc.distillation.silo_state import states_of
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.distillation.transport import SiloId, SiloTransport
from fedcpsc.files import explained_writes
from fedcpsc.models.device import choose_device
from fedcpsc.protocol.query_size import images_of_bytes
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.claim import check_run_folder
from fedcpsc.runs.descriptions import write_descriptions
from fedcpsc.runs.inherited import Inherited
from fedcpsc.runs.layout import BANK_FOLDER, CHECKPOINT_FOLDER, CONFIG_FILE, DESCRIPTIONS_FILE, TIMELINE_FILE
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.timeline import Timeline
from fedcpsc.typed_yaml import save_config

__all__ = ["SiloFacts", "distill"]


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
    check_run_folder(run_dir, config, resume=resume, tell=tell)
    device = choose_device(config.runtime.device)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    with earlier_answers(config, run_dir, tell) as inherited:
        taking = take_part(config, transport, run_dir, evaluation, inherited, tell, resume=resume)
        label_sets, image_shape, evaluation = taking.federation
        silos = list(taking.silos)
        reports = {silo: said.class_report for silo, said in taking.silos.items()}
        counts = class_counts(rule, silos, reports, label_sets)
        _begin(run_dir, config, taking, inherited, resume=resume)
    bank = AnswerBank(
        run_dir / BANK_FOLDER, image_shape, label_sets.classes, silos, label_sets, config.aggregation.exclude
    )
    timeline = Timeline(run_dir / TIMELINE_FILE, resumed=resume, clock=clock)
    states = states_of(
        taking.silos,
        taking.forms,
        denoise=config.aggregation.denoise,
        in_flight=OverlapPolicy.of(config.queries).in_flight,
        images_fit=images_of_bytes(config.queries.max_megabytes, image_shape),
        origin=taking.origin,
        departed=taking.departed,
    )
    scheduler = QueryScheduler(transport, states, bank, config.output.name, tell, timeline)
    for silo, why in taking.absent.items():
        scheduler.leave(silo, why)
    denoise = config.aggregation.denoise
    windows = {silo: Window(taking.forms[silo], said.noise_sigma, denoise) for silo, said in taking.silos.items()}
    targets = TargetKeeper(bank, config.aggregation, counts, windows)
    try:
        with progress_log(run_dir, config, bank, resumed=resume) as progress, fitting(config, bank, device) as fit:
            engine = RoundLoop(
                RoundPlan.of(config, taking.origin),
                bank,
                scheduler,
                targets,
                timeline,
                fit=fit,
                device=device,
                folder=run_dir / CHECKPOINT_FOLDER,
                evaluation=evaluation,
                progress=progress,
                tell=tell,
                turned_away=taking.turned_away,
            )
            engine.run()
    finally:
        scheduler.close()
    ensemble = measure_ensemble(engine.fitted, evaluation, silo_facts)
    outcome = Outcome(
        engine.fitted,
        scheduler.silos,
        evaluation,
        ensemble,
        silo_facts,
        transport.traffic,
        engine.generator,
        taking.origin,
        taking.not_joined,
        taking.turned_away,
    )
    return leave(run_dir, outcome)


def _begin(
    run_dir: Path, config: RunConfig, taking: Participants, inherited: Inherited | None, *, resume: bool
) -> None:
    """Makes the folder, with the configuration and what the silos said of themselves at the run's first attempt.

    Where it begins with an earlier run's answers, their copy comes last, and is there whole or not at all.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with explained_writes(run_dir):
        save_config(config, run_dir / CONFIG_FILE)
        if inherited is not None and taking.continuation is not None:
            write_descriptions(run_dir, taking.continuation.descriptions)
            label_sets = taking.federation.label_sets
            copy_inherited(inherited, taking.continuation, taking.silos, label_sets, run_dir / BANK_FOLDER)
        elif not (resume and (run_dir / DESCRIPTIONS_FILE).exists()):
            write_descriptions(run_dir, taking.silos)
