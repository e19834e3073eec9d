"""A run's folder, read into one frozen object. Nothing in the folder is changed, also while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import BankError, RunError, explain
from fedcpsc.runs.bank_view import BankView, find_bank
from fedcpsc.runs.failure import read_failure
from fedcpsc.runs.layout import (
    BANK_FOLDER,
    CONFIG_FILE,
    DETAILS_FILE,
    JOURNAL_FILE,
    METRICS_FILE,
    RESULT_FILE,
    TIMELINE_FILE,
)
from fedcpsc.runs.metrics import MetricsLine, SiloLine, read_metrics
from fedcpsc.runs.result import RunResult, SiloResult, check_schema, read_result
from fedcpsc.runs.strict_json import parse_mapping
from fedcpsc.runs.timeline import Span, read_timeline

__all__ = ["DETAILS_SCHEMA", "Counts", "Details", "RunFacts", "Silo", "gather", "read_details"]

Counts = npt.NDArray[np.int64]

DETAILS_SCHEMA: Final = 1


@dataclass(frozen=True)
class Silo:
    """One silo, as far as the run knows it.

    Attributes:
        teacher_accuracy: on the held-out images, in [0, 1]; only a simulation knows it.
        train_size: its private images; only a simulation knows it.
        answers: images it answered in this run.
        left: of its budget over all time; None where not recorded.
        refusals: how often it refused, by code.
        gone: why it was no longer asked; None where it was to the end.
        dp, epsilon, delta, unit, relation, mechanism: its claim; None where not recorded yet.
        reply_seconds: median round trip of a query.
        form: the answer form it was asked for; None where not recorded.
        noise_sigma: standard deviation of the noise on each of its probabilities; None where not recorded.
    """

    id: str
    answers: int
    left: int | None = None
    teacher_accuracy: float | None = None
    train_size: int | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    gone: str | None = None
    dp: bool | None = None
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None
    relation: str | None = None
    mechanism: str | None = None
    reply_seconds: float | None = None
    form: str | None = None
    noise_sigma: float | None = None


@dataclass(frozen=True, eq=False)
class Details:
    """Content of details.json.

    Attributes:
        student, ensemble: confusion int64 [K, K], rows the true class; None without held-out images, and for the
            ensemble outside a simulation.
        teachers: the same by silo; empty outside a simulation.
        images: images by the class the silos agreed on, int64 [K].
        weights: each silo's mean share in that class's target, [K], in [0, 1].
    """

    student: Counts | None
    ensemble: Counts | None
    teachers: Mapping[str, Counts]
    images: Counts
    weights: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class RunFacts:
    """All that a run's folder tells.

    Attributes:
        config: of the run.
        lines: of metrics.jsonl, each round and each part of the final fit once, in order.
        result: of result.json; None where the run has not finished.
        silos: in the bank's order.
        details: None where the run left none (unfinished, or made by an earlier version).
        bank: what was asked; None where the folder has no bank.
        timeline: what was done when; empty where the run left none.
        error: what the run died of, where it says so.
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

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.output.name

    @property
    def rounds(self) -> tuple[MetricsLine, ...]:
        """The lines of the rounds."""
        return tuple(line for line in self.lines if line["phase"] == "round")

    @property
    def simulated(self) -> bool:
        """Whether it says it was a simulation; False where unknown: a report then shows less."""
        return bool(self.result and self.result.get("simulated", False))


def gather(folder: Path) -> RunFacts:
    """Reads the run in `folder`, finished or not.

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
    lines, bank = read_metrics(folder), find_bank(folder)
    if result is not None:
        _check_whole(folder, config, result, lines, bank)
    return RunFacts(
        folder=folder,
        config=config,
        lines=lines,
        result=result,
        silos=_silos(result, lines, bank),
        details=None if result is None else read_details(folder),
        bank=bank,
        timeline=read_timeline(folder / TIMELINE_FILE),
        error=read_failure(folder) if result is None else None,
    )


def read_details(folder: Path) -> Details | None:
    """The content of details.json; None where the run left none.

    Raises:
        RunError: the file is damaged, lacks something, or was written by a newer version.
    """
    path = folder / DETAILS_FILE
    remedy = f"restore the file, or delete {RESULT_FILE} and let the run end again with --resume"
    try:
        tree = parse_mapping(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        remedy = "give yourself the right to read it"
        raise RunError(explain("run", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    except ValueError as error:
        raise RunError(explain("run", str(path), f"is damaged ({error})", remedy)) from error
    check_schema(tree, path, DETAILS_SCHEMA)
    try:
        return _details(tree)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(explain("run", str(path), f"its files lack something ({error!r})", remedy)) from error


def _check_whole(
    folder: Path, config: RunConfig, result: RunResult, lines: tuple[MetricsLine, ...], bank: BankView | None
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
        told, kept = silo["queries_answered"], bank.answers_of(silo["id"]) if bank is not None else 0
        if kept < told:
            constraint = f"tells of {kept:,} images that {silo['id']} answered, {RESULT_FILE} of {told:,}"
            path = folder / BANK_FOLDER / JOURNAL_FILE
            raise BankError(explain("journal", str(path), constraint, "restore the bank's folder from a backup"))


def _silos(result: RunResult | None, lines: tuple[MetricsLine, ...], bank: BankView | None) -> tuple[Silo, ...]:
    if result is not None:
        return tuple(_silo(entry) for entry in result["silos"])
    if bank is None:
        return ()
    last: dict[str, SiloLine] = next((line["silos"] for line in reversed(lines) if "silos" in line), {})
    told = {name: last.get(name) for name in bank.silos}
    return tuple(
        Silo(name, bank.answers_of(name), now["left"] if now else None, gone=(now.get("gone") if now else None) or None)
        for name, now in told.items()
    )


def _silo(entry: SiloResult) -> Silo:
    return Silo(
        id=entry["id"],
        answers=entry["queries_answered"],
        left=entry.get("answers_left"),
        teacher_accuracy=entry["teacher_accuracy"],
        train_size=entry["train_size"],
        refusals=dict(entry["refusals"]),
        gone=entry.get("left"),
        dp=entry["dp"],
        epsilon=entry["epsilon"],
        delta=entry.get("delta"),
        unit=entry.get("unit"),
        relation=entry.get("relation"),
        mechanism=entry.get("mechanism"),
        reply_seconds=entry.get("reply_seconds"),
        form=entry.get("form"),
        noise_sigma=entry.get("noise_sigma"),
    )


def _details(read: dict[str, Any]) -> Details:
    confusion = read["confusion"] or {}
    contribution = read["contribution"]
    return Details(
        student=_matrix(confusion.get("student")),
        ensemble=_matrix(confusion.get("ensemble")),
        teachers={
            silo: np.asarray(matrix, np.int64).reshape(len(matrix), -1)
            for silo, matrix in confusion.get("teachers", {}).items()
        },
        images=np.asarray(contribution["images"], np.int64),
        weights={silo: np.asarray(shares, np.float64) for silo, shares in contribution["weights"].items()},
    )


def _matrix(rows: list[list[int]] | None) -> Counts | None:
    return None if rows is None else np.asarray(rows, np.int64).reshape(len(rows), -1)
