# SPDX-License-Identifier: Apache-2.0
"""Leaves an audit behind: its pictures, its verdict, `audit.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedcpsc.audit.figures import AuditFile, AuditRow, Bound, ModelFacts, Plot, RunExtras, Unjudged
from fedcpsc.audit.plan import AuditConfig
from fedcpsc.audit.plots import save_plots
from fedcpsc.audit.stages import AuditFolder
from fedcpsc.audit.verdict import judge
from fedcpsc.provenance import commit, versions
from fedcpsc.runs.audit_file import AUDIT_SCHEMA

__all__ = ["write_audit"]


def write_audit(
    folder: AuditFolder,
    config: AuditConfig,
    *,
    rows: list[AuditRow],
    bounds: list[Bound],
    models: list[ModelFacts],
    facts: Mapping[str, Any],
    private_plots: Sequence[Plot] = (),
    extras: RunExtras | None = None,
) -> AuditFile:
    """Writes the pictures, then `audit.json`; returns its content.

    Args:
        folder: folder of the audit.
        config: plan of the audit.
        rows: one row for each policy, surface and attack.
        bounds: one bound for each policy and surface with canaries or a claim, as `claims.held_against` completes them.
        models: accuracy and agreement of what was attacked.
        facts: facts of the setting: the run or the pool, the shadows, the queries.
        private_plots: pictures already drawn under `private/`.
        extras: further parts, of a finished run: copying, label mix, stealing.
    """
    extras = extras or {}
    audit: Unjudged = {
        "schema": AUDIT_SCHEMA,
        "kind": "run" if "run" in facts else "scratch",
        "config": config.model_dump(mode="json"),
        "facts": facts,
        "versions": versions(),
        "commit": commit(),
        "seeds": {"audit": config.seed},
        "seconds": round(folder.seconds, 1),
        "rows": rows,
        "bounds": bounds,
        "models": models,
        **extras,
    }
    plots = [*save_plots(folder.folder, audit), *private_plots]
    return folder.finish({**audit, "verdict": judge(audit), "plots": plots})
