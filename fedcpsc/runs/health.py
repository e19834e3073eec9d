# SPDX-License-Identifier: Apache-2.0
"""How a run does, from its folder alone: while it goes on and after its end, wherever the folder can be seen.

The folder does not tell whether a process still works on it, only when something was last written. So a run that has
written nothing for longer than it may is called stalled: it waits for no answer for so long, and none of its rounds has
taken a third of that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

from fedcpsc.errors import ConfigError, explain
from fedcpsc.runs.evaluation_words import without_test_images
from fedcpsc.runs.failure import read_failure
from fedcpsc.runs.layout import (
    BANK_FOLDER,
    CHECKPOINT_FILE,
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    ERROR_FILE,
    FLOWER_LOG,
    JOURNAL_FILE,
    METRICS_FILE,
    RESULT_FILE,
    SUPERLINK_LOG,
)
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.payments import payments
from fedcpsc.runs.read import RunFacts, gather
from fedcpsc.runs.suspicion import NO_TWO_AGREE, describe_suspicion, exclusion

__all__ = ["EarlierRun", "Health", "SiloHealth", "State", "read_health"]

State: TypeAlias = Literal["starting", "running", "finished", "failed", "stalled"]

_LOGS = (FLOWER_LOG, SUPERLINK_LOG, ERROR_FILE)
_CHECKPOINT = f"{CHECKPOINT_FOLDER}/{CHECKPOINT_FILE}"
_ALIVE = (CONFIG_FILE, METRICS_FILE, f"{BANK_FOLDER}/{JOURNAL_FILE}", _CHECKPOINT, RESULT_FILE)
_STARTING_S = 600.0  # silos are made and processes started, of which the folder shows nothing
_LEEWAY_S = 60.0
_SLOWEST_ROUNDS = 3.0


@dataclass(frozen=True)
class SiloHealth:
    """One silo in a run.

    Attributes:
        id: name of the silo.
        answers: number of images whose answers of it the run's bank holds.
        answers_left: number of images that its owner still allows, over all time; None where not known yet.
        stopped: reason why it is no longer asked; None where it is.
        here: number of images it has answered in this run itself; None where that is all of them.
        reputation: weight it gets for how far it is believed, in [0, 1]; None where silos are not judged.
        agreement: mean agreement with the others that share a class with it, in [0, 1]; None where none does, or silos
            are not judged.
        suspicion: what speaks against it, in words; None where nothing does.
    """

    id: str
    answers: int
    answers_left: int | None
    stopped: str | None
    reputation: float | None = None
    agreement: float | None = None
    suspicion: str | None = None
    here: int | None = None


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run that answers came from.

    Attributes:
        name: name of the run.
        folder: folder that it lay in.
        commit: commit of the source that it ran by; None where not known.
        answers: number of images that each silo answered there, by its name in this run.
    """

    name: str
    folder: str
    commit: str | None
    answers: Mapping[str, int]


@dataclass(frozen=True)
class Health:
    """A run's health.

    Attributes:
        name: name of the run.
        state: state of the run, see `State`; a stalled one may be waiting for its user to resume it.
        phase: phase in the last line of metrics.jsonl, `round` or `final`; None before the first.
        round, rounds: number of the last round done, and number of all rounds.
        share_done: share of the whole work, in [0, 1].
        seconds: seconds spent on the run, earlier attempts counted in.
        seconds_left: estimated seconds to the end; None where nothing is known.
        waiting_share: share of `seconds` spent waiting for answers, in [0, 1].
        answers_budget: number of images to be asked of each silo.
        silos: health of each silo, in the bank's order; empty before they have joined.
        refit: whether nobody is asked, and a student is fitted to what earlier runs banked.
        earlier_runs: earlier runs that answers came from, the earliest first.
        excluded: names of the silos that are left out (`aggregation.exclude`).
        not_judged: reason why nothing can be said against any silo, in words; None where there is none.
        turned_away: reasons why silos, or nodes, that answered were not let in, by name.
        silent_s: seconds since anything was written.
        line_age_s: seconds since the last line of metrics.jsonl; None before the first.
        checkpoint_age_s: seconds since the last checkpoint; None before the first.
        stalled_after_s: number of silent seconds after which the run is called stalled.
        alarms: matters that an operator should look at, in words.
        error: error that ended the run, or a later attempt at a finished one; None where none did.
        student_accuracy: share of held-out images classified rightly, in [0, 1]; None where not measured.
        without_test_images: what else is known of a finished student, in words: the silos' evaluation, or an estimate.
    """

    name: str
    state: State
    phase: str | None = None
    round: int = 0
    rounds: int = 0
    share_done: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None
    waiting_share: float = 0.0
    answers_budget: int = 0
    silos: tuple[SiloHealth, ...] = ()
    refit: bool = False
    earlier_runs: tuple[EarlierRun, ...] = ()
    excluded: tuple[str, ...] = ()
    not_judged: str | None = None
    turned_away: Mapping[str, str] = field(default_factory=dict)
    silent_s: float = 0.0
    line_age_s: float | None = None
    checkpoint_age_s: float | None = None
    stalled_after_s: float = _STARTING_S
    alarms: tuple[str, ...] = ()
    error: str | None = None
    student_accuracy: float | None = None
    without_test_images: tuple[str, ...] = ()


def read_health(run_dir: Path, stalled_after_s: float | None = None, now: float | None = None) -> Health:
    """The health of the run in `run_dir`.

    Args:
        run_dir: folder of the run; nothing in it is changed.
        stalled_after_s: number of silent seconds after which a run is called stalled; None for the larger of a round's
            deadline and a minute, and three times the longest pause so far.
        now: seconds since 1970; None for the present.

    Raises:
        ConfigError: there is no run.
        RunError, BankError: a file of it is damaged.
    """
    now = time.time() if now is None else now
    if not (run_dir / CONFIG_FILE).exists():
        return _before_the_silos_joined(run_dir, stalled_after_s or _STARTING_S, now)
    facts = gather(run_dir, opened=False)
    limit = stalled_after_s or max(
        facts.config.queries.deadline_s + _LEEWAY_S, _SLOWEST_ROUNDS * _longest_pause(facts.lines)
    )
    silent = now - max(_written(run_dir / name) or 0.0 for name in _ALIVE)
    last, here = facts.lines[-1] if facts.lines else None, {paid.silo: paid.here for paid in payments(facts)}
    seconds, waiting_share = _seconds(facts)
    return Health(
        name=facts.name,
        state=_state(facts, silent > limit),
        phase=None if last is None else last["phase"],
        round=0 if last is None else last["round"],
        rounds=facts.planned_rounds,
        share_done=0.0 if last is None else float(last["share_done"]),
        seconds=seconds,
        seconds_left=None if last is None else last["seconds_left"],
        waiting_share=waiting_share,
        answers_budget=facts.config.queries.answers_per_silo,
        silos=tuple(
            SiloHealth(
                s.id, s.answers, s.answers_left, s.stopped, s.reputation, s.agreement, s.suspicion, here.get(s.id)
            )
            for s in facts.silos
        ),
        refit=facts.lineage is not None and facts.lineage.kind == "refit",
        earlier_runs=tuple(
            EarlierRun(one.run, one.folder, one.commit, one.answers)
            for one in (facts.lineage.runs if facts.lineage is not None else ())
        ),
        excluded=facts.config.aggregation.exclude,
        not_judged=facts.not_judged,
        turned_away=facts.turned_away,
        silent_s=round(silent, 1),
        line_age_s=_age(run_dir / METRICS_FILE, now) if facts.lines else None,
        checkpoint_age_s=_age(run_dir / _CHECKPOINT, now),
        stalled_after_s=limit,
        alarms=_alarms(last, facts),
        error=facts.error or _later_failure(facts),
        without_test_images=() if facts.result is None else tuple(without_test_images(facts.result)),
        student_accuracy=next((line["student_accuracy"] for line in reversed(facts.lines) if _measured(line)), None),
    )


def _before_the_silos_joined(run_dir: Path, limit: float, now: float) -> Health:
    written = [moment for name in _LOGS if (moment := _written(run_dir / name)) is not None]
    if not written:
        remedy = "give the folder that fedcpsc run makes, for example runs/digits"
        raise ConfigError(explain("run", str(run_dir), "holds no run", remedy))
    error = read_failure(run_dir)
    silent = now - max(written)
    state: State = "failed" if error is not None else "stalled" if silent > limit else "starting"
    return Health(run_dir.name, state, silent_s=round(silent, 1), stalled_after_s=limit, error=error)


def _state(facts: RunFacts, silent: bool) -> State:
    if facts.result is not None:
        return "finished"
    if facts.error is not None:
        return "failed"
    return "stalled" if silent else "running"


def _seconds(facts: RunFacts) -> tuple[float, float]:
    """(seconds spent on the run, share of them spent waiting for answers)."""
    if facts.result is not None and "waiting_share" in facts.result["seconds"]:
        return facts.result["seconds"]["total"], facts.result["seconds"]["waiting_share"]
    if not facts.lines:
        return 0.0, 0.0
    seconds = float(facts.lines[-1]["seconds"])
    return seconds, round(facts.lines[-1]["waiting_s"] / seconds, 4) if seconds else 0.0


def _later_failure(facts: RunFacts) -> str | None:
    """What an attempt failed of after the run had finished; None where none did."""
    written, finished = (_written(facts.folder / name) for name in (ERROR_FILE, RESULT_FILE))
    return read_failure(facts.folder) if written and finished and written > finished else None


def _alarms(last: MetricsLine | None, facts: RunFacts) -> tuple[str, ...]:
    found = []
    if last is not None and last["alarm"]:
        found.append(f"the silos call nearly everything one class (class entropy {last['entropy']:.2f})")
    excluded = facts.config.aggregation.exclude
    refit = facts.lineage is not None and facts.lineage.kind == "refit"
    how = "in another fedcpsc refit does without it" if refit else "and --resume refit without it"
    for silo, why in facts.suspicions.items():
        found.append(f"{describe_suspicion(silo, why)}; {exclusion([silo], excluded)} {how}")
    if facts.not_judged == NO_TWO_AGREE:
        found.append(f"{NO_TWO_AGREE}: which of them to believe is not known")
    left = {} if facts.lineage is None else facts.lineage.left
    found += [
        f"{silo.id} is no longer asked: {silo.stopped}"
        for silo in facts.silos
        if silo.stopped and silo.stopped != left.get(silo.id)  # which was known when the run began
    ]
    return tuple(found)


def _longest_pause(lines: tuple[MetricsLine, ...]) -> float:
    moments = [0.0, *(float(line["seconds"]) for line in lines)]
    return max((after - before for before, after in pairwise(moments)), default=0.0)


def _measured(line: MetricsLine) -> bool:
    return "student_accuracy" in line


def _written(path: Path) -> float | None:
    return path.stat().st_mtime if path.exists() else None


def _age(path: Path, now: float) -> float | None:
    moment = _written(path)
    return None if moment is None else round(now - moment, 1)
