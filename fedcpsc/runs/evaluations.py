# SPDX-License-Identifier: Apache-2.0
"""evaluations.json: which silos were asked to judge which student, under which ids, and what they said.

It is on the disk before the first silo is asked: a run that is gone on with asks under the same ids, and no silo
charges twice. Each entry belongs to one student, by the SHA-256 of its weights: the fitted one, then those with other
class biases (`distillation.logit_adjustment`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedcpsc.errors import ProtocolError, RunError, explain
from fedcpsc.files import durable
from fedcpsc.protocol.codec import fields_of, from_fields
from fedcpsc.protocol.evaluation import EvaluationAnswer
from fedcpsc.runs.layout import EVALUATIONS_FILE
from fedcpsc.runs.result import PooledEvaluation, SiloEvaluation, check_schema
from fedcpsc.strict_json import format_json, parse_mapping

__all__ = ["Evaluations", "pooled", "read_evaluations", "silo_evaluation", "write_evaluations"]

_SCHEMA: Final = 2  # 1 held a single student


@dataclass
class Evaluations:
    """What was asked of whom about one student.

    Attributes:
        student: SHA-256 of the weights that are judged, in hexadecimal digits.
        ids: id of the query to each silo that is asked, by its name.
        answers: answers that came, by the silo's name.
        reasons: reasons why there is no number, by the silo's name.
    """

    student: str
    ids: dict[str, str] = field(default_factory=dict)
    answers: dict[str, EvaluationAnswer] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def write_evaluations(run_dir: Path, students: Sequence[Evaluations]) -> None:
    """Writes the file, whole or not at all, and hands it to the disk.

    Args:
        run_dir: folder of the run.
        students: what was asked about each student, the fitted one first.

    Raises:
        OSError: it cannot be written.
    """
    path = run_dir / EVALUATIONS_FILE
    entries = [
        {**vars(student), "answers": {silo: fields_of(answer)[0] for silo, answer in student.answers.items()}}
        for student in students
    ]
    with durable(path) as file:
        file.write((format_json({"schema": _SCHEMA, "students": entries}, path, indent=1) + "\n").encode())


def read_evaluations(run_dir: Path) -> list[Evaluations]:
    """The file's content, the fitted student first; empty where no silo was asked yet.

    Raises:
        RunError: the file is damaged, cannot be read, or was written by a newer version.
    """
    path = run_dir / EVALUATIONS_FILE
    try:
        tree = parse_mapping(path.read_bytes())
        check_schema(tree, path, _SCHEMA)
        return [_read(entry) for entry in tree.get("students", [tree])]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ProtocolError) as error:
        remedy = f"restore it, or delete {path.name}: silos are then asked anew, which they charge anew"
        raise RunError(explain("run", str(path), f"is damaged or cannot be read ({error!r})", remedy)) from error


def _read(tree: Mapping[str, Any]) -> Evaluations:
    read = {str(silo): from_fields(fields, {}) for silo, fields in tree["answers"].items()}
    answers = {silo: answer for silo, answer in read.items() if isinstance(answer, EvaluationAnswer)}
    return Evaluations(str(tree["student"]), dict(tree["ids"]), answers, dict(tree["reasons"]))


def silo_evaluation(silo: str, answer: EvaluationAnswer | None, reason: str | None) -> SiloEvaluation:
    """One silo's entry of the result.

    Args:
        silo: name of the silo.
        answer: answer of the silo; None where there is none.
        reason: reason why there is no number, or why it is not believed.
    """
    entry: SiloEvaluation = {"id": silo, "right": None, "sigma": None, "images": None, "accuracy": None,
                             "standard_error": None, "dp": None, "epsilon": None, "reason": reason}  # fmt: skip
    if answer is None:
        return entry
    entry |= {"right": answer.right, "sigma": answer.sigma, "images": answer.held_out,
              "dp": answer.claim.dp, "epsilon": answer.claim.epsilon}  # fmt: skip
    if answer.held_out is not None:
        entry["accuracy"] = _clipped(answer.right / answer.held_out)
        entry["standard_error"] = math.sqrt(_variance(answer.right, answer.held_out, answer.sigma)) / answer.held_out
    return entry


def pooled(entries: Sequence[SiloEvaluation]) -> PooledEvaluation | None:
    """The silos' images as one sample: all right ones over all images; None where no silo tells how many it has.

    The standard error comes from the number of images, as of independent draws, and from the noise.

    Args:
        entries: entries of the silos; those with a reason are left out.
    """
    right, images, variance, silos = 0, 0, 0.0, 0
    for entry in entries:
        counted, size = entry["right"], entry["images"]
        if counted is None or size is None or entry["reason"] is not None:
            continue
        right, images, silos = right + counted, images + size, silos + 1
        variance += _variance(counted, size, entry["sigma"] or 0.0)
    if not images:
        return None
    error = math.sqrt(variance) / images
    return {"accuracy": _clipped(right / images), "standard_error": error, "images": images, "silos": silos}


def _variance(right: int, images: int, sigma: float) -> float:
    """Variance of a number of right images: of the sample, by a share that is never quite 0 or 1, and of the noise."""
    share = _clipped((right + 1) / (images + 2))
    return images * share * (1 - share) + sigma**2


def _clipped(share: float) -> float:
    return min(1.0, max(0.0, share))
