# SPDX-License-Identifier: Apache-2.0
"""audit.json: what an audit found. Every reader gets it from here, checked to its schema and parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fedcpsc.errors import AuditError, explain
from fedcpsc.strict_json import parse_mapping

__all__ = ["AUDIT_CONFIG_FILE", "AUDIT_FILE", "AUDIT_SCHEMA", "read_audit_file"]

AUDIT_FILE: Final = "audit.json"
AUDIT_CONFIG_FILE: Final = "config.yaml"
"""In the audit's folder, which is not the run's."""
AUDIT_SCHEMA: Final = 1
_PARTS = {"schema", "verdict", "rows", "bounds", "plots"}


def read_audit_file(folder: Path) -> dict[str, Any]:
    """The audit in `folder`.

    Raises:
        AuditError: the file is missing, damaged, lacks a part, or was written by another version.
    """
    path = folder / AUDIT_FILE
    try:
        audit = parse_mapping(path.read_bytes())
    except OSError as error:
        remedy = "give the folder that fedcpsc audit wrote, or run fedcpsc audit first"
        raise AuditError(explain("audit", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    except ValueError as error:
        remedy = "delete it and run the audit again with --resume: finished stages are kept"
        raise AuditError(explain("audit", str(path), f"is damaged ({error})", remedy)) from error
    schema, missing = audit.get("schema"), sorted(_PARTS - audit.keys())
    if isinstance(schema, bool) or schema != AUDIT_SCHEMA or missing:
        constraint = f"is damaged or of another version: it must have schema {AUDIT_SCHEMA}, has {schema!r}"
        constraint += f", and lacks {', '.join(missing)}" if missing else ""
        remedy = "use the version that wrote it, or delete it and run the audit again with --resume"
        raise AuditError(explain("audit", str(path), constraint, remedy))
    return audit
