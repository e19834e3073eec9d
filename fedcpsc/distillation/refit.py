# SPDX-License-Identifier: Apache-2.0
"""Fits another student to what a run has banked: nobody is asked anything, and that run's folder is only read.

The rounds are worked through as the run did, with its images, pools and seeds, and then comes the final fit. So the
same configuration gives the run's own student again, weight by weight, as it was fitted, as long as no answer of it
came after the deadline of its round. Class biases that silos shifted afterwards are not among what is banked.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from fedcpsc.aggregation.rule import RULES, Floats
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.aggregation import class_counts
from fedcpsc.distillation.bank_fit import BankFit
from fedcpsc.distillation.ending import leave, measure_ensemble
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.events import check_tensorboard
from fedcpsc.distillation.federation import answer_windows, federated_labels, forms_of_bank
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.outcome import Outcome
from fedcpsc.distillation.progress import Progress, ProgressReporter
from fedcpsc.distillation.progress_log import progress_log
from fedcpsc.distillation.round_schedule import OverlapPolicy, RoundSchedule
from fedcpsc.distillation.silo_state import SiloState
from fedcpsc.distillation.student_start import described_start, student_start
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.distillation.transport import SiloId
from fedcpsc.errors import ConfigError, FederationError, RunError, explain
from fedcpsc.files import explained_writes
from fedcpsc.freed_memory import keep_freed_memory
from fedcpsc.label_sets import LabelSets
from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.device import choose_device
from fedcpsc.models.own_module import GivenStudent
from fedcpsc.models.precision import settled_precision
from fedcpsc.models.student_check import check_student
from fedcpsc.models.students import Start
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_copy import copy_bank
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.claim import Existing, claim, worked_on_alone
from fedcpsc.runs.descriptions import write_descriptions
from fedcpsc.runs.inherited import Inherited, check_changes_of_refit, inheriting
from fedcpsc.runs.layout import BANK_FOLDER, CONFIG_FILE, TIMELINE_FILE
from fedcpsc.runs.lineage import Lineage, read_lineage
from fedcpsc.runs.real_pictures import keep_public, read_public
from fedcpsc.runs.result import RunResult, read_result
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.student_start import write_student_start
from fedcpsc.runs.timeline import Timeline
from fedcpsc.typed_yaml import save_config

__all__ = ["refit"]

_NOBODY_ASKED = "fedcpsc refit asks no silo anything, and none has evaluated this student"


def refit(
    source: Path,
    config: RunConfig,
    run_dir: Path,
    *,
    existing: Existing = Existing.REFUSE,
    evaluation: ImageSet | None = None,
    silo_facts: Mapping[SiloId, SiloFacts] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    student: GivenStudent | None = None,
) -> RunResult:
    """Fits a student to the answers that a run has banked, and leaves in `run_dir` what a run leaves.

    Args:
        source: folder of the run, finished or not.
        config: configuration of the run, but for what concerns the fit: `student`, `evaluation`, `output`, `runtime`,
            and of `aggregation` `rule`, `robust`, `smoothing` and `exclude`.
        run_dir: folder of the new run.
        existing: choice of what to do where that folder holds a run: refuse, or move it to `<name>.previous`.
        evaluation: held-out real images; they are only looked at.
        silo_facts: teachers that gave the answers, by the silo's name, where they are at hand; None where not.
        tell: function called with one line for each event an operator should know.
        progress: function called with one line for each round and for each part of the final fit.
        clock: source of seconds that never run backwards.
        student: module to be fitted in place of `student.architecture`, or a function that makes it, as for a run.

    Returns:
        The result, as the new run's result.json holds it.

    Raises:
        RunError: `source` is no run, is being worked on, or has no answers; or `run_dir` holds a run; or the fit
            diverges.
        BankError: the bank is damaged.
        ConfigError: the configuration changes something else, or leaves out silos that alone know a class.
        FederationError: the rule needs class counts that a silo did not share.
    """
    if config.output.tensorboard:
        check_tensorboard()
    device, start = choose_device(config.runtime.device), student_start(config.student, student)
    with ExitStack() as held:
        with inheriting(source, run_dir, tell) as inherited:
            check_changes_of_refit(inherited.config, config)
            config = _with_precision(config, inherited.config, device)
            kept = _kept(inherited, config, start)
            labelled = _labelled(evaluation, inherited, config, tell)
            tell(inherited.in_words())
            _tell_of_biases(source, tell)
            _claim(run_dir, existing)
            held.enter_context(worked_on_alone(run_dir))
            lineage = _begin(inherited, config, run_dir, start)
        return _fit(config, run_dir, kept, lineage, device, labelled, silo_facts, tell, progress, clock, start)


def _fit(
    config: RunConfig,
    run_dir: Path,
    kept: _Kept,
    lineage: Lineage,
    device: torch.device,
    evaluation: ImageSet | None,
    silo_facts: Mapping[SiloId, SiloFacts] | None,
    tell: Callable[[str], None],
    progress: Progress,
    clock: Callable[[], float],
    start: Start,
) -> RunResult:
    """The fit, once the bank lies in the new run's folder."""
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    silos, excluded = list(kept.states), config.aggregation.exclude
    bank = AnswerBank(
        run_dir / BANK_FOLDER, kept.image_shape, kept.label_sets.classes, silos, kept.label_sets, excluded
    )
    keep_freed_memory()
    timeline = Timeline(run_dir / TIMELINE_FILE, resumed=False, clock=clock)
    said = {silo: state.description for silo, state in kept.states.items()}
    forms = {silo: state.form for silo, state in kept.states.items()}
    windows = answer_windows(said, forms, denoise=config.aggregation.denoise)
    targets = TargetKeeper(bank, config.aggregation, kept.counts, windows)
    log = progress_log(run_dir, config, bank, resumed=False, then=progress)
    arithmetic = gpu_arithmetic(device, tf32=config.runtime.tf32)
    with log as line, arithmetic, fitting(config, bank, device) as fit:
        plan = RoundPlan.of(config, lineage)
        fitted = BankFit(plan, bank, targets, timeline, fit=fit, device=device, networks=1, start=start)
        reporter = ProgressReporter(fitted, bank.group_ends[-1], kept.states, evaluation, line, tell, asking=False)
        _work_through(fitted, reporter, tell)
    facts = {silo: silo_facts[silo] for silo in silos if silo in silo_facts} if silo_facts else None
    ensemble = measure_ensemble(fitted, evaluation, facts)
    return leave(
        run_dir,
        Outcome(
            fitted,
            kept.states,
            evaluation,
            ensemble,
            facts or None,
            lineage=lineage,
            public=read_public(run_dir),
            predicted=reporter.predicted,
            at_silos={"silos": [], "pooled": None, "reason": _NOBODY_ASKED} if config.evaluation.at_silos else None,
        ),
    )


def _tell_of_biases(source: Path, tell: Callable[[str], None]) -> None:
    """Tells that the earlier student's class biases were shifted by the silos' counts, which nobody is asked here."""
    result = read_result(source)
    made = None if result is None else result.get("federated_evaluation", {}).get("adjustment")
    if made is not None and made["shifts"]:
        tell(
            "the class biases of that run's student were shifted by what silos counted on held-out images"
            " (evaluation.logit_adjustments); those of this student stay as they are fitted"
        )


@dataclass(frozen=True, eq=False)
class _Kept:
    """The silos that are not left out.

    Attributes:
        image_shape: shape of the bank's images, (C, H, W).
        states: what is known of each silo, by its name, in the bank's order.
        label_sets: what the columns of their answers mean.
        counts: class counts, [S, K], where the rule needs them; else None.
    """

    image_shape: tuple[int, int, int]
    states: dict[SiloId, SiloState]
    label_sets: LabelSets
    counts: Floats | None


def _kept(inherited: Inherited, config: RunConfig, start: Start) -> _Kept:
    """The silos whose answers are fitted to; refuses, before anything is written, what no student can come of.

    Raises:
        ConfigError: a name is no silo's, or nothing is left, or a class is no silo's; or the student cannot be trained.
        FederationError: the rule needs class counts that a silo did not share.
    """
    exclude, bank = set(config.aggregation.exclude), read_bank(inherited.bank.folder)
    check_student(config, bank.classes, bank.image_shape, start)
    if unknown := sorted(exclude - set(bank.silos)):
        constraint = f"the bank holds no answers of these; it holds those of {', '.join(bank.silos[:20])}"
        raise ConfigError(explain("aggregation.exclude", unknown, constraint, "fix the name, or leave it out"))
    bank.leave_out(exclude)
    if not any(batch.heard for batch in bank.batches):
        constraint = "leaves no answers to fit to"
        raise ConfigError(explain("aggregation.exclude", sorted(exclude), constraint, "leave a silo that answered"))
    if not bank.label_sets.known.any(0).all():
        constraint = f"leaves fewer than the run's {bank.classes} classes: excluded silos alone know the others"
        remedy = "begin a new run without them, by another --name"
        raise ConfigError(explain("aggregation.exclude", sorted(exclude), constraint, remedy))
    said = {silo: inherited.descriptions[silo] for silo in bank.silos}
    before = inherited.run.lineage
    forms = forms_of_bank(said, config.queries.form, () if before is None else before.left)
    reports = {silo: description.class_report for silo, description in said.items()}
    counts = class_counts(RULES.get(config.aggregation.rule), bank.silos, reports, bank.label_sets)
    last = {silo.id: silo.answers_left for silo in inherited.run.silos}
    states = {}
    for silo, description in said.items():
        left = last.get(silo)
        left = description.answers_left if left is None else left
        states[silo] = SiloState(description, forms[silo], 0.0, size=1, limit=1, answers_left=left)
    return _Kept(bank.image_shape, states, bank.label_sets, counts)


def _labelled(
    evaluation: ImageSet | None, inherited: Inherited, config: RunConfig, tell: Callable[[str], None]
) -> ImageSet | None:
    """The held-out images with the bank's labels; None, which is told, where they do not go together."""
    bank = inherited.bank
    if evaluation is None:
        return None
    if evaluation.image_shape != bank.image_shape:
        shown = f"{list(evaluation.image_shape)}, the bank's are {list(bank.image_shape)}"
        tell(f"nothing is measured on held-out images: theirs is the shape {shown}")
        return None
    try:
        return federated_labels(evaluation, bank.label_sets, config.aggregation.aliases)
    except FederationError as error:
        tell(f"nothing is measured on held-out images: {error}")
        return None


def _with_precision(config: RunConfig, before: RunConfig, device: torch.device) -> RunConfig:
    """The configuration with the number formats of the run whose answers are fitted to, where it says nothing else."""
    asked, emulation = config.student.precision or before.student.precision, config.runtime.emulation
    of_fit = settled_precision("student.precision", asked, device, emulation=emulation)
    student = config.student.model_copy(update={"precision": of_fit})
    synthesis = config.synthesis.model_copy(update={"precision": before.synthesis.precision})
    return config.model_copy(update={"student": student, "synthesis": synthesis})


def _claim(run_dir: Path, existing: Existing) -> None:
    """Makes the folder free, unless it holds a run that is to stay, or that a process works on."""
    if existing is Existing.OVERWRITE and (run_dir / CONFIG_FILE).exists():
        with worked_on_alone(run_dir):
            pass
    if claim(run_dir, existing):
        remedy = "begin it again with --overwrite: a refit pays for nothing"
        raise RunError(explain("refit", str(run_dir), "is not gone on with", remedy))


def _begin(inherited: Inherited, config: RunConfig, run_dir: Path, start: Start) -> Lineage:
    """Makes the folder: first the bank, then the configuration, which makes it a run's.

    A refit that died before is done over: its bank is a copy, and holds nothing that was paid for here.
    """
    before, bank = inherited.run.lineage, inherited.bank
    lineage = Lineage(
        kind="refit",
        runs=inherited.earlier_runs,
        ends=() if before is None else before.ends,
        images=0 if before is None else before.images,
        left={} if before is None else before.left,
        earlier=() if before is None else before.earlier,
        real_pictures=() if before is None else before.real_pictures,
    )
    with explained_writes(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        if (run_dir / BANK_FOLDER).exists():
            found = read_lineage(run_dir)
            if found is None or found.kind != "refit":
                remedy = "move it away, or give the refit a --name of its own"
                raise RunError(explain("bank", str(run_dir / BANK_FOLDER), "lies there already", remedy))
            shutil.rmtree(run_dir / BANK_FOLDER)
        copy_bank(bank, run_dir / BANK_FOLDER, bank.silos, bank.label_sets, lineage)
        write_student_start(run_dir, described_start(start))
        if (public := read_public(inherited.run.folder)) is not None:
            keep_public(run_dir, **public)
        save_config(config, run_dir / CONFIG_FILE)
        write_descriptions(run_dir, inherited.descriptions)
    return lineage


def _work_through(fitted: BankFit, reporter: ProgressReporter, tell: Callable[[str], None]) -> None:
    """The rounds, in the groups in which they were asked about, and the final fit."""
    schedule = RoundSchedule(OverlapPolicy.of(fitted.plan.config.queries).max_outstanding)
    fitted.pretrain(tell)
    for end in fitted.bank.group_ends:
        group = range(schedule.asked, end)
        fitted.targets.refresh(schedule.seen)
        fitted.fit_rounds(group, schedule)
        schedule = schedule.after(group)
        answered = fitted.aggregate(schedule.seen)
        if len(answered):
            fitted.measure(answered)
        reporter.report(group, "round")
    last = range(schedule.asked - 1, schedule.asked)
    fitted.fit_student_to_all(
        schedule, fitted.aggregate, lambda done: reporter.report(last, "final", final_steps_done=done)
    )
