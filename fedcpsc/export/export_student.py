# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc export` does: the student in one format, its check, and the model card of all formats in the folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from fedcpsc.errors import RunError, explain
from fedcpsc.export.card import CARD_FILE, model_card
from fedcpsc.export.formats import check_packages, write_checked
from fedcpsc.export.hub_config import CONFIG_FILE, check_config_is_ours, hub_config
from fedcpsc.export.plan import Format
from fedcpsc.files import write_whole
from fedcpsc.models.own_module import GivenStudent
from fedcpsc.report.audit_folder import read_audit
from fedcpsc.runs.layout import EXPORT_FOLDER, STUDENT_FILE
from fedcpsc.runs.read import gather
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
) -> list[Path]:
    """Writes model, `export.json`, `config.json` and `README.md`; returns their paths. Formats written before stay.

    Args:
        out: folder to write into; None takes `export/` in the run's folder.
        audit_dir: folder of an audit of this run; its public part goes into the card.
        module: module of the caller's own that the run was given, or one like it; None where it had none.

    Raises:
        RunError: the run has not finished, is damaged, its student is a module that was not given or that the format
            cannot hold, or the file did not pass its check.
        ConfigError: a package is missing.
        AuditError: the audit is damaged.
    """
    check_packages(file_format)
    run = gather(run_dir)
    student = load_student(run, module)
    audit = None if audit_dir is None else read_audit(audit_dir, run=run.name, owner=None)
    out = out or run_dir / EXPORT_FOLDER
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(explain("--out", str(out), f"cannot be made ({error.strerror})", "choose another")) from error
    path = out / file_format.file
    check_config_is_ours(out)
    check = write_checked(student, file_format, path)
    weights = hashlib.sha256((run_dir / STUDENT_FILE).read_bytes()).hexdigest()
    before = _before(out / CHECKS_FILE, weights)
    checks = {**before, file_format.value: {"file": path.name, "bytes": path.stat().st_size, **asdict(check)}}
    record = {"schema": 1, "student_sha256": weights, "torch": torch.__version__, "formats": checks}
    write_whole(out / CHECKS_FILE, json.dumps(record, indent=2) + "\n")
    write_whole(out / CONFIG_FILE, hub_config(student))
    write_whole(out / CARD_FILE, model_card(run, student, checks, audit))
    return [path, out / CHECKS_FILE, out / CONFIG_FILE, out / CARD_FILE]


def _before(path: Path, weights: str) -> dict[str, dict[str, object]]:
    """Checks of the formats that lie there already, where they are of this very student."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        same = record["student_sha256"] == weights
        return {name: dict(check) for name, check in record["formats"].items()} if same else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none yet, or not ours: the record is written anew
