# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc export` does: the student in one format, its check, and the model card of all formats in the folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.export.card import CARD_FILE, model_card
from fedcpsc.export.class_shares import fit_class_biases
from fedcpsc.export.formats import check_packages, write_checked
from fedcpsc.export.hub_config import CONFIG_FILE, check_config_is_ours, hub_config
from fedcpsc.export.plan import Format
from fedcpsc.files import write_whole
from fedcpsc.models.own_module import GivenStudent
from fedcpsc.report.audit_folder import read_audit
from fedcpsc.runs.layout import EXPORT_FOLDER, FITTED_EXPORT_FOLDER, STUDENT_FILE
from fedcpsc.runs.read import RunFacts, gather
from fedcpsc.runs.student import load_student

__all__ = ["CHECKS_FILE", "export_run"]

CHECKS_FILE = "export.json"


def export_run(
    run_dir: Path,
    file_format: Format,
    out: Path | None = None,
    *,
    audit_dir: Path | None = None,
    module: GivenStudent | None = None,
    unlabelled: Path | npt.NDArray[np.uint8] | None = None,
    class_shares: Path | Mapping[str, float] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Writes model, `export.json`, `config.json` and `README.md`; returns their paths. Formats written before stay.

    Args:
        out: folder to write into; None takes `export/` in the run's folder, or `export-unlabelled/` where class biases
            are fitted to unlabelled pictures.
        audit_dir: folder of an audit of this run; its public part goes into the card.
        module: module of the caller's own that the run was given, or one like it; None where it had none.
        unlabelled: unlabelled pictures, or their place, to which the class biases of what is written are fitted, see
            `class_shares.fit_class_biases`; None writes the student as it is. The run itself stays as it is.
        class_shares: how often each class occurs among such pictures, or a file that says so; None: all equally often.
        tell: function called with a line about what was read and done.

    Raises:
        RunError: the run has not finished, is damaged, its student is a module that was not given or that the format
            cannot hold, or the file did not pass its check.
        ConfigError: a package is missing, or `class_shares` cannot be used.
        DataError: the unlabelled pictures cannot be read, or are too few.
        AuditError: the audit is damaged.
    """
    check_packages(file_format)
    run = gather(run_dir)
    student = load_student(run, module)
    audit = None if audit_dir is None else read_audit(audit_dir, run=run.name, owner=None)
    if class_shares is not None and unlabelled is None:
        remedy = "give unlabelled pictures, too, or leave it out"
        shown = str(class_shares) if isinstance(class_shares, Path) else class_shares
        raise ConfigError(explain("class shares", shown, "say nothing without unlabelled pictures", remedy))
    fitted = None
    if unlabelled is not None:
        fitted, report = fit_class_biases(run, student, unlabelled, class_shares)
        for line in (*(report.lines() if report else ()), *fitted.lines(student.shown_names, _accuracy(run))):
            tell(line)
    out = out or run_dir / (EXPORT_FOLDER if fitted is None else FITTED_EXPORT_FOLDER)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(explain("--out", str(out), f"cannot be made ({error.strerror})", "choose another")) from error
    path = out / file_format.file
    check_config_is_ours(out)
    weights = hashlib.sha256((run_dir / STUDENT_FILE).read_bytes()).hexdigest()
    shifted = {} if fitted is None else {"class_biases": fitted.record()}
    before = _before(out / CHECKS_FILE, weights, shifted)
    check = write_checked(student, file_format, path)
    checks = {**before, file_format.value: {"file": path.name, "bytes": path.stat().st_size, **asdict(check)}}
    record = {"schema": 1, "student_sha256": weights, **shifted, "torch": torch.__version__, "formats": checks}
    write_whole(out / CHECKS_FILE, json.dumps(record, indent=2) + "\n")
    write_whole(out / CONFIG_FILE, hub_config(student))
    write_whole(out / CARD_FILE, model_card(run, student, checks, audit, fitted))
    return [path, out / CHECKS_FILE, out / CONFIG_FILE, out / CARD_FILE]


def _accuracy(run: RunFacts) -> float | None:
    return None if run.result is None else run.result["student"]["accuracy"]


def _before(path: Path, weights: str, shifted: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """Checks of the formats that lie there already, where they are of this very student.

    Raises:
        RunError: they have other class biases: files of unlike students would lie beside one card.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        same, there = record["student_sha256"] == weights, record.get("class_biases")
        formats = {name: dict(check) for name, check in record["formats"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none yet, or not ours: the record is written anew
    if same and there != json.loads(json.dumps(shifted)).get("class_biases"):
        constraint = "holds the student with other class biases, or as it was fitted"
        raise RunError(explain("--out", str(path.parent), constraint, "choose another folder, or remove that one"))
    return formats if same else {}
