# SPDX-License-Identifier: Apache-2.0
"""A run's folder, read into one frozen object. Nothing in the folder is changed, also while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import BankError, RunError, explain
from fedcpsc.runs.bank_index import BankIndex
from fedcpsc.runs.bank_view import BankView, find_bank, find_index
from fedcpsc.runs.details import Details, check_details, read_details
from fedcpsc.runs.failure import read_failure
from fedcpsc.runs.layout import (
    BANK_FOLDER,
    CONFIG_FILE,
    JOURNAL_FILE,
    METRICS_FILE,
    RESULT_FILE,
    TIMELINE_FILE,
)
from fedcpsc.runs.lineage import Lineage, read_lineage
from fedcpsc.runs.metrics import MetricsLine, SiloLine, read_metrics
from fedcpsc.runs.result import RunResult, SiloResult, read_result
from fedcpsc.runs.student_start import StudentStart, read_student_start
from fedcpsc.runs.timeline import Span, read_timeline

__all__ = ["RunFacts", "Silo", "gather"]


@dataclass(frozen=True)
class Silo:
    """One silo, as far as the run knows it.

    Attributes:
        id: name of the silo.
        answers: number of images it answered in this run.
        answers_left: number of images that its owner still allows, over all time; None where not recorded.
        teacher_accuracy: share of held-out images classified rightly, in [0, 1]; only a simulation knows it.
        train_size: number of its private images; only a simulation knows it.
        refusals: number of its refusals, by code.
        stopped: reason why it was no longer asked; None where it was to the end.
        dp, epsilon, delta, unit, relation, mechanism: privacy claim; None where not recorded yet.
        reply_seconds: median seconds of a round trip; None where not recorded.
        form: answer form it was asked for; None where not recorded.
        noise_sigma: standard deviation of the noise on each of its probabilities; None where not recorded.
        reputation: weight it gets for how far it is believed, in [0, 1]; None where silos are not judged.
        agreement: mean agreement with the others that share a class with it, in [0, 1]; None where none does, or silos
            are not judged.
        suspicion: what speaks against it, in words; None where nothing does.
    """

    id: str
    answers: int
    answers_left: int | None = None
    teacher_accuracy: float | None = None
    train_size: int | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    stopped: str | None = None
    dp: bool | None = None
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None
    relation: str | None = None
    mechanism: str | None = None
    reply_seconds: float | None = None
    form: str | None = None
    noise_sigma: float | None = None
    reputation: float | None = None
    agreement: float | None = None
    suspicion: str | None = None


@dataclass(frozen=True, eq=False)
class RunFacts:
    """All that a run's folder tells.

    Attributes:
        folder: folder of the run.
        config: configuration of the run.
        lines: lines of metrics.jsonl, each round and each part of the final fit once, in order.
        result: content of result.json; None where the run has not finished.
        silos: facts of each silo, in the bank's order.
        details: content of details.json; None where the run left none (unfinished, or made by an earlier version).
        bank: images and answers of the run; None where the folder has no bank.
        timeline: spans of time and what they were spent on; empty where the run left none.
        error: error that ended the run; None where none is known.
        lineage: where the bank's answers came from; None where the run asked for all of them itself.
        student_start: what the student began as, where the configuration does not say it all.
    """

    folder: Path
    config: RunConfig
    lines: tuple[MetricsLine, ...]
    result: RunResult | None
    silos: tuple[Silo, ...]
    details: Details | None
    bank: BankView | None
    timeline: tuple[Span, ...]
    error: str | None
    student_start: StudentStart
    lineage: Lineage | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.output.name

    @property
    def rounds(self) -> tuple[MetricsLine, ...]:
        """The lines of the rounds."""
        return tuple(line for line in self.lines if line["phase"] == "round")

    @property
    def planned_rounds(self) -> int:
        """Number of rounds of the run, inherited ones counted in."""
        return self.lines[-1]["rounds"] if self.lines else self.config.queries.rounds

    @property
    def simulated(self) -> bool:
        """Whether it says it was a simulation; False where unknown: a report then shows less."""
        return bool(self.result and self.result.get("simulated", False))

    @property
    def judged(self) -> bool:
        """Whether the silos were judged by their answers (`aggregation.robust`)."""
        return any(silo.reputation is not None for silo in self.silos)

    @property
    def suspicions(self) -> dict[str, str]:
        """What speaks against each suspected silo, in words, by its name."""
        return {silo.id: silo.suspicion for silo in self.silos if silo.suspicion}

    @property
    def not_judged(self) -> str | None:
        """The reason why nothing can be said against any silo, in words; None where there is none, or none recorded."""
        if self.result is not None:
            return self.result.get("not_judged")
        return self.rounds[-1].get("not_judged") if self.rounds else None

    @property
    def turned_away(self) -> Mapping[str, str]:
        """Reasons why silos, or nodes, that answered were not let in, by name; they may quote what those said."""
        if self.result is not None:
            return self.result.get("turned_away", {})
        return self.rounds[-1].get("turned_away", {}) if self.rounds else {}


def gather(folder: Path, *, opened: bool = True) -> RunFacts:
    """Reads the run in `folder`, finished or not.

    Args:
        folder: folder of the run.
        opened: whether to open images, answers and matrices; False leaves `bank` and `details` None, checked only as
            far as that goes without numpy: a status is asked for often, and needs neither.

    Raises:
        RunError: it is no run's folder, or a file in it is damaged, lacks something, or is of a newer version.
        BankError: its answer bank is damaged. A bank that is not there is no error.
        ConfigError: its configuration is damaged.
    """
    if not (folder / CONFIG_FILE).is_file():
        remedy = "give the folder that fedcpsc run left, for example runs/digits"
        raise RunError(explain("run", str(folder), f"is not the folder of a run: it holds no {CONFIG_FILE}", remedy))
    config = load_config(folder / CONFIG_FILE)
    result = read_result(folder)  # first: it is written last, so what is read after it is complete where it is there
    lines = read_metrics(folder)
    view = find_bank(folder, config.aggregation.exclude) if opened else None
    bank = view if opened else find_index(folder, config.aggregation.exclude)
    if result is not None and not opened:
        check_details(folder)
    if result is not None:
        _check_whole(folder, config, result, lines, bank)
    return RunFacts(
        folder=folder,
        config=config,
        lines=lines,
        result=result,
        silos=_silos(result, lines, bank),
        details=read_details(folder) if opened and result is not None else None,
        bank=view,
        timeline=read_timeline(folder / TIMELINE_FILE),
        error=read_failure(folder) if result is None else None,
        student_start=read_student_start(folder),
        lineage=read_lineage(folder),
    )


def _check_whole(
    folder: Path, config: RunConfig, result: RunResult, lines: tuple[MetricsLine, ...], bank: BankIndex | None
) -> None:
    """Holds what a finished run wrote as it went against result.json: a file cut short between two lines is damaged.

    Raises:
        RunError: metrics.jsonl lacks its end.
        BankError: the journal does.
    """
    if config.student.final_steps != 0 and (not lines or lines[-1]["phase"] != "final" or lines[-1]["share_done"] < 1):
        constraint = "lacks its last lines, though the run has finished"
        raise RunError(explain("metrics", str(folder / METRICS_FILE), constraint, "restore the file"))
    for silo in result["silos"] if bank is not None else ():
        stated, kept = silo["answers"], bank.answers_of(silo["id"]) if bank is not None else 0
        if kept < stated:
            constraint = f"holds {kept:,} images that {silo['id']} answered, {RESULT_FILE} says {stated:,}"
            path = folder / BANK_FOLDER / JOURNAL_FILE
            raise BankError(explain("journal", str(path), constraint, "restore the bank's folder from a backup"))


def _silos(result: RunResult | None, lines: tuple[MetricsLine, ...], bank: BankIndex | None) -> tuple[Silo, ...]:
    if result is not None:
        return tuple(_silo(entry) for entry in result["silos"])
    if bank is None:
        return ()
    last: dict[str, SiloLine] = next((line["silos"] for line in reversed(lines) if "silos" in line), {})
    return tuple(
        Silo(
            name,
            bank.answers_of(name),
            now["answers_left"],
            stopped=now.get("stopped"),
            reputation=now.get("reputation"),
            agreement=now.get("agreement"),
            suspicion=now.get("suspicion"),
        )
        if (now := last.get(name))
        else Silo(name, bank.answers_of(name))
        for name in bank.silos
    )


def _silo(entry: SiloResult) -> Silo:
    return Silo(
        id=entry["id"],
        answers=entry["answers"],
        answers_left=entry.get("answers_left"),
        teacher_accuracy=entry["teacher_accuracy"],
        train_size=entry["train_size"],
        refusals=dict(entry["refusals"]),
        stopped=entry.get("stopped"),
        dp=entry["dp"],
        epsilon=entry["epsilon"],
        delta=entry.get("delta"),
        unit=entry.get("unit"),
        relation=entry.get("relation"),
        mechanism=entry.get("mechanism"),
        reply_seconds=entry.get("reply_seconds"),
        form=entry.get("form"),
        noise_sigma=entry.get("noise_sigma"),
        reputation=entry.get("reputation"),
        agreement=entry.get("agreement"),
        suspicion=entry.get("suspicion"),
    )
