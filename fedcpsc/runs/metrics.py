# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl: how a run goes, one line a round and one a part of the final fit.

Lines carry no schema number: a run that a newer version resumes has lines of both forms in one file. The forms are told
apart by a silo's keys, which earlier versions called `left` and `gone`; readers give the form of this version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, NotRequired, cast

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from fedcpsc.errors import RunError, explain
from fedcpsc.runs.layout import METRICS_FILE
from fedcpsc.strict_json import format_json, parse_mapping

__all__ = [
    "MetricsLine",
    "SiloLine",
    "append_line",
    "describe_line",
    "describe_phase",
    "describe_stop",
    "duration",
    "read_metrics",
    "upgrade_line",
]

_RENAMED_IN_SILOS: Final = {"left": "answers_left", "gone": "stopped"}


class SiloLine(TypedDict):
    """One silo after a round.

    Attributes:
        answers: number of images it has answered in this run.
        answers_left: number of images that its owner still allows.
        stopped: reason why it is no longer asked; None where it is.
        reputation: weight it gets for how far it is believed, its reputation times its lowest steadiness, in [0, 1];
            missing where silos are not judged.
        agreement: mean agreement with the others that share a class with it, in [0, 1]; None where none does, so that
            nobody can check it; missing where silos are not judged.
        suspicion: what speaks against it, in words; None where nothing does; missing where silos are not judged.
    """

    answers: int
    answers_left: int
    stopped: NotRequired[str | None]
    reputation: NotRequired[float]
    agreement: NotRequired[float | None]
    suspicion: NotRequired[str | None]


class MetricsLine(TypedDict):
    """One line.

    Attributes:
        round, rounds: number of the round that is done, from 1, and number of all rounds.
        bank: images in the answer bank.
        answers_used, answers_budget: most images that a silo has answered, and images to be asked of each.
        entropy: entropy of the classes that the silos see in the images, in [0, 1].
        alarm: whether the entropy is below `output.alarm_entropy`.
        seconds, waiting_s: seconds spent on the run, earlier attempts counted in, and those of them spent waiting.
        share_done: share of the whole work, in [0, 1].
        seconds_left: estimated seconds to the end.
        active_silos: number of silos that are still asked.
        silos: figures of each silo, in lines of rounds.
        not_judged: reason why nothing can be said against any silo, in lines of rounds; None where silos are judged.
        turned_away: reasons why silos, or nodes, that answered were not let in, by name; in lines of rounds where there
            are any.
        student_accuracy: share of held-out images classified rightly, in [0, 1], where measured.
        ensemble_accuracy: the same of the teachers' aggregate; earlier versions alone wrote it.
    """

    phase: Literal["round", "final"]
    round: int
    rounds: int
    bank: int
    answers_used: int
    answers_budget: int
    entropy: float
    alarm: bool
    seconds: float
    waiting_s: float
    share_done: float
    seconds_left: float
    active_silos: NotRequired[int]
    silos: NotRequired[dict[str, SiloLine]]
    not_judged: NotRequired[str | None]
    turned_away: NotRequired[dict[str, str]]
    student_accuracy: NotRequired[float]
    ensemble_accuracy: NotRequired[float]


_LINE = TypeAdapter(MetricsLine)


def describe_stop(silo: str, why: str) -> str:
    """The reason why a silo is no longer asked, as one sentence without its full stop."""
    return f"{silo} is no longer asked: {why}"


def append_line(path: Path, line: MetricsLine) -> None:
    """Adds a line to the file.

    Raises:
        OSError: it cannot be written.
        RunError: a number in it is not finite.
    """
    text = format_json(line, path)
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def upgrade_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line in the form of this version; one that has it already, and what is damaged, comes back as it is.

    Args:
        line: content of the line, not yet checked; left unchanged.
    """
    silos = line.get("silos")
    if not isinstance(silos, dict):
        return line
    return line | {"silos": {name: _upgraded_silo(silo) for name, silo in silos.items()}}


def _upgraded_silo(silo: Any) -> Any:
    if not isinstance(silo, dict):
        return silo
    named = {_RENAMED_IN_SILOS.get(key, key): value for key, value in silo.items()}
    if silo.get("gone") == "":  # what earlier versions wrote of a silo that is still asked
        named["stopped"] = None
    return named


def read_metrics(run_dir: Path) -> tuple[MetricsLine, ...]:
    """The lines, each round and each part of the final fit once and in order; none where there is no file.

    Lines of earlier versions are given in the form of this one.

    Of lines that a resumed run wrote again the last one counts. A line that is still being written is left out.

    Raises:
        RunError: a line is damaged.
    """
    path = run_dir / METRICS_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        remedy = "give yourself the right to read it"
        raise RunError(explain("metrics", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    found: dict[tuple[str, int, float], MetricsLine] = {}
    for number, text in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), 1):
        try:
            line = upgrade_line(parse_mapping(text))
            _LINE.validate_python(line, strict=True)
        except ValueError as error:  # pydantic's ValidationError is one
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            remedy = "delete that line, or restore the file"
            raise RunError(explain("metrics", f"{path}, line {number}", f"is damaged ({why})", remedy)) from error
        key = (line["phase"], line["round"], float(line["share_done"]))
        found.pop(key, None)
        found[key] = cast(MetricsLine, line)
    order = sorted(found, key=lambda key: (key[0] == "final", key[1], key[2]))
    return tuple(found[key] for key in order)


def describe_line(line: MetricsLine) -> str:
    """How far a run is, in one line for people.

    Args:
        line: line of the run.
    """
    parts = [describe_phase(line)]
    parts.append(f"bank {line['bank']:,}")
    parts.append(f"answers {line['answers_used']:,}/{line['answers_budget']:,}")
    for who, accuracy in (("student", line.get("student_accuracy")), ("ensemble", line.get("ensemble_accuracy"))):
        if accuracy is not None:
            parts.append(f"{who} {accuracy:.1%}")
    parts.append(f"{duration(line['seconds_left'])} left")
    return ", ".join(parts)


def describe_phase(line: MetricsLine) -> str:
    """Which part of the run a line is of, in words."""
    return f"round {line['round']}/{line['rounds']}" if line["phase"] == "round" else "final fit"


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds.

    Args:
        seconds: number of seconds, >= 0.
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
