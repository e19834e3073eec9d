# SPDX-License-Identifier: Apache-2.0
"""Does one whole run: lets the silos join, runs the rounds, and completes the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fedcpsc.aggregation.rule import RULES
from fedcpsc.choices import check_mixture
from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.images import ImageSet
from fedcpsc.data.unlabelled import Found, PublicPictures, find_pictures, read_found
from fedcpsc.distillation.aggregation import class_counts
from fedcpsc.distillation.at_silos import evaluate_at_silos, tell_of_evaluation
from fedcpsc.distillation.ending import leave, measure_ensemble
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.evaluation_requests import JudgedStudent
from fedcpsc.distillation.events import check_tensorboard
from fedcpsc.distillation.federation import answer_windows
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.inheritance import copy_inherited
from fedcpsc.distillation.loop import RoundLoop
from fedcpsc.distillation.outcome import Outcome
from fedcpsc.distillation.participants import Participants, earlier_answers, take_part
from fedcpsc.distillation.progress import Progress
from fedcpsc.distillation.progress_log import progress_log
from fedcpsc.distillation.public_images import check_enough
from fedcpsc.distillation.query_scheduler import QueryScheduler
from fedcpsc.distillation.round_schedule import OverlapPolicy
from fedcpsc.distillation.silo_state import states_of
from fedcpsc.distillation.student_start import described_start, student_start
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.distillation.transport import SiloId, SiloTransport
from fedcpsc.files import explained_writes
from fedcpsc.freed_memory import keep_freed_memory
from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.device import choose_device
from fedcpsc.models.own_module import GivenStudent
from fedcpsc.models.precision import with_settled_precision
from fedcpsc.models.students import Start
from fedcpsc.protocol.query_size import images_of_bytes
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.claim import check_run_folder
from fedcpsc.runs.descriptions import note_sharing, write_descriptions
from fedcpsc.runs.inherited import Inherited
from fedcpsc.runs.layout import BANK_FOLDER, CHECKPOINT_FOLDER, CONFIG_FILE, DESCRIPTIONS_FILE, TIMELINE_FILE
from fedcpsc.runs.origins import origin_table
from fedcpsc.runs.real_pictures import keep_public, read_public
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.student_start import check_same_start, write_student_start
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
    progress: Progress = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    student: GivenStudent | None = None,
) -> RunResult:
    """Runs the whole distillation and leaves in `run_dir` what the README lists; returns its result.

    Args:
        transport: way to the silos; `connect` may have been called already (it is idempotent).
        run_dir: folder of the run, created; with `resume` it holds an earlier attempt at the same configuration.
        evaluation: held-out real images; they are only looked at.
        silo_facts: the simulation's measuring instrument; None in a deployment.
        tell: function called with one line for each event an operator should know.
        progress: function called with each line of metrics.jsonl, once it is written.
        clock: source of seconds that never run backwards; the run and its deadlines are timed by it.
        student: module to be fitted in place of `student.architecture`, or a function that makes it: float32
            [B, C, H, W] in [-1, 1] -> logits [B, K]. A copy of it is fitted, from the weights that it has; the given
            module stays as it is. `runs.student.load_student` gives the fitted copy.

    Raises:
        FederationError: too few silos, silos that do not fit together, or none that answers.
        RunError, BankError: the folder holds another run, or files that are damaged; nothing has been written then.
        ConfigError: a value that only the silos show to be wrong, or a module that cannot be fitted.
        DataError: the server's own pictures cannot be read.
    """
    check_mixture(config.synthesis.prior)
    found = None if config.synthesis.public is None else find_pictures(config.synthesis.public)
    rule = RULES.get(config.aggregation.rule)
    if config.output.tensorboard:
        check_tensorboard()
    check_run_folder(run_dir, config, resume=resume, tell=tell)
    start = student_start(config.student, student)
    check_same_start(run_dir, described_start(start))
    device = choose_device(config.runtime.device)
    before = load_config(run_dir / CONFIG_FILE) if (run_dir / CONFIG_FILE).exists() else None
    config = with_settled_precision(config, device, before=before, own_student=start.own is not None)
    keep_freed_memory()
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    with earlier_answers(config, run_dir, tell) as inherited:
        taking = take_part(config, transport, run_dir, evaluation, inherited, start, tell, resume=resume)
        label_sets, image_shape, evaluation = taking.federation
        silos = list(taking.silos)
        reports = {silo: said.class_report for silo, said in taking.silos.items()}
        counts = class_counts(rule, silos, reports, label_sets)
        present = {silo: said for silo, said in taking.silos.items() if silo not in taking.absent}
        tell_of_evaluation(config, start, present, tell)
        public = None if found is None else _public_pictures(config, found, image_shape, tell)
        _begin(run_dir, config, taking, inherited, public, start, resume=resume)
    bank = AnswerBank(
        run_dir / BANK_FOLDER,
        image_shape,
        label_sets.classes,
        silos,
        label_sets,
        config.aggregation.exclude,
        origin_table(config.synthesis.prior),
    )
    timeline = Timeline(run_dir / TIMELINE_FILE, resumed=resume, clock=clock)
    states = states_of(
        taking.silos,
        taking.forms,
        denoise=config.aggregation.denoise,
        in_flight=OverlapPolicy.of(config.queries).in_flight,
        images_fit=images_of_bytes(config.queries.max_megabytes, image_shape),
        lineage=taking.lineage,
        departed=taking.departed,
    )
    scheduler = QueryScheduler(transport, states, bank, config.output.name, tell, timeline)
    for silo, why in taking.absent.items():
        scheduler.leave(silo, why)
    windows = answer_windows(taking.silos, taking.forms, denoise=config.aggregation.denoise)
    targets = TargetKeeper(bank, config.aggregation, counts, windows)
    try:
        log = progress_log(run_dir, config, bank, resumed=resume, then=progress)
        arithmetic = gpu_arithmetic(device, tf32=config.runtime.tf32)
        with log as line, arithmetic, fitting(config, bank, device) as fit:
            engine = RoundLoop(
                RoundPlan.of(config, taking.lineage),
                bank,
                scheduler,
                targets,
                timeline,
                fit=fit,
                device=device,
                folder=run_dir / CHECKPOINT_FOLDER,
                evaluation=evaluation,
                progress=line,
                tell=tell,
                turned_away=taking.turned_away,
                public=public,
                start=start,
            )
            engine.run()
            judged = JudgedStudent(
                engine.fitted.student.network,
                start,
                bank.label_sets,
                image_shape,
                tuple(bank.silos),
                present,
                engine.fitted.suspected,
                engine.accuracy if config.evaluation.at_silos else None,
            )
            at_silos = evaluate_at_silos(config, judged, transport, run_dir, tell)
            if at_silos is not None and (made := at_silos.get("adjustment")) is not None and made["shifts"]:
                engine.report_once_more()
    finally:
        scheduler.close()
    # of a silo that has left, nobody said which teacher lies in its folder now
    facts = None if silo_facts is None else {s: own for s, own in silo_facts.items() if s not in taking.departed}
    ensemble = measure_ensemble(engine.fitted, evaluation, facts)
    outcome = Outcome(
        engine.fitted,
        scheduler.silos,
        evaluation,
        ensemble,
        facts,
        transport.traffic,
        engine.generator,
        taking.lineage,
        taking.not_joined,
        taking.turned_away,
        read_public(run_dir),
        engine.predicted,
        at_silos,
    )
    return leave(run_dir, outcome)


def _public_pictures(
    config: RunConfig, found: Found, image_shape: tuple[int, int, int], tell: Callable[[str], None]
) -> PublicPictures | None:
    """The server's own pictures, decoded for the silos that joined; what was read is told."""
    own = config.synthesis.public
    if own is None:
        return None
    pictures = read_found(found, own, image_shape, config.seed)
    check_enough(config, len(pictures.images))
    for line in pictures.report.lines():
        tell(line)
    return pictures


def _begin(
    run_dir: Path,
    config: RunConfig,
    taking: Participants,
    inherited: Inherited | None,
    public: PublicPictures | None,
    start: Start,
    *,
    resume: bool,
) -> None:
    """Makes the folder, with the configuration and what the silos said of themselves at the run's first attempt.

    Where it begins with an earlier run's answers, their copy comes last, and is there whole or not at all.

    Raises:
        RunError: it was begun with other pictures of the server's own.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with explained_writes(run_dir):
        if public is not None:
            keep_public(run_dir, public.name, len(public.images), public.digest, [*public.report.lines()])
        write_student_start(run_dir, described_start(start))
        save_config(config, run_dir / CONFIG_FILE)
        if inherited is not None and taking.continuation is not None:
            write_descriptions(run_dir, taking.continuation.descriptions)
            label_sets = taking.federation.label_sets
            bank, priors = run_dir / BANK_FOLDER, config.synthesis.prior
            copy_inherited(inherited, taking.continuation, taking.silos, label_sets, bank, priors)
        elif resume and (run_dir / DESCRIPTIONS_FILE).exists():
            note_sharing(run_dir, taking.silos)
        else:
            write_descriptions(run_dir, taking.silos)
