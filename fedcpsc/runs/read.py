"""A run's folder, read into one frozen object. Nothing in the folder is changed, also while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import RunError, explain
from fedcpsc.runs.bank_view import BankView, read_bank
from fedcpsc.runs.timeline import TIMELINE_FILE, Stretch, read_timeline

__all__ = ["Details", "RunFacts", "Silo", "gather"]

Counts = npt.NDArray[np.int64]


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
    lines: tuple[dict[str, Any], ...]
    result: dict[str, Any] | None
    silos: tuple[Silo, ...]
    details: Details | None
    bank: BankView | None
    timeline: tuple[Stretch, ...]
    error: str | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.output.name

    @property
    def rounds(self) -> tuple[dict[str, Any], ...]:
        """The lines of the rounds."""
        return tuple(line for line in self.lines if line["phase"] == "round")

    @property
    def simulated(self) -> bool:
        """Whether it says it was a simulation; False where unknown: a report then shows less."""
        return bool(self.result and self.result.get("simulated", False))


def gather(folder: Path) -> RunFacts:
    """Reads the run in `folder`, finished or not.

    Raises:
        RunError: it is no run's folder, or a file in it is damaged.
        BankError: its answer bank is damaged. A bank that is not there is no error.
    """
    if not (folder / "config.yaml").is_file():
        remedy = "give the folder that fedcpsc run left, for example runs/digits"
        raise RunError(explain("run", str(folder), "is not the folder of a run: it holds no config.yaml", remedy))
    config = load_config(folder / "config.yaml")
    lines = _lines(folder / "metrics.jsonl")
    result = _json(folder / "result.json")
    details = _json(folder / "details.json")
    bank = read_bank(folder / "bank") if (folder / "bank" / "journal.jsonl").exists() else None
    error = folder / "error.txt"
    try:
        return RunFacts(
            folder=folder,
            config=config,
            lines=lines,
            result=result,
            silos=_silos(result, lines, bank),
            details=None if details is None or result is None else _details(details),
            bank=bank,
            timeline=read_timeline(folder / TIMELINE_FILE),
            error=error.read_text(encoding="utf-8").strip() if error.exists() and result is None else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        remedy = "restore the folder, or let the run end again with --resume"
        raise RunError(explain("run", str(folder), f"its files lack something ({problem!r})", remedy)) from problem


def _lines(path: Path) -> tuple[dict[str, Any], ...]:
    """The lines; of those that a resumed run wrote again, the last. One still being written is left out."""
    if not path.exists():
        return ()
    raw = path.read_bytes()
    found: dict[tuple[str, int, float], dict[str, Any]] = {}
    for number, text in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), 1):
        try:
            line = dict(json.loads(text))
            key = (str(line["phase"]), int(line["round"]), float(line["share_done"]))
        except (ValueError, TypeError, KeyError) as error:
            remedy = "delete that line, or restore the file"
            raise RunError(explain("metrics", f"{path}, line {number}", f"is damaged ({error!r})", remedy)) from error
        found.pop(key, None)
        found[key] = line
    order = sorted(found, key=lambda key: (key[0] == "final", key[1], key[2]))
    return tuple(found[key] for key in order)


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        remedy = "restore the file, or let the run end again with --resume"
        raise RunError(explain("run", str(path), f"is damaged ({error})", remedy)) from error


def _silos(result: dict[str, Any] | None, lines: tuple[dict[str, Any], ...], bank: BankView | None) -> tuple[Silo, ...]:
    if result is not None:
        return tuple(_silo(entry) for entry in result["silos"])
    if bank is None:
        return ()
    last: dict[str, Any] = next((line["silos"] for line in reversed(lines) if "silos" in line), {})
    told = {name: last.get(name, {}) for name in bank.silos}
    return tuple(
        Silo(name, bank.answers_of(name), now.get("left"), gone=now.get("gone") or None) for name, now in told.items()
    )


def _silo(entry: dict[str, Any]) -> Silo:
    same = {
        key: entry.get(key)
        for key in (
            "teacher_accuracy",
            "train_size",
            "epsilon",
            "delta",
            "unit",
            "relation",
            "mechanism",
            "form",
            "noise_sigma",
        )
    }
    return Silo(
        id=str(entry["id"]),
        answers=int(entry["queries_answered"]),
        left=entry.get("answers_left"),
        refusals=dict(entry["refusals"]),
        gone=entry.get("left"),
        dp=bool(entry["dp"]),
        reply_seconds=entry.get("reply_seconds"),
        **same,
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
