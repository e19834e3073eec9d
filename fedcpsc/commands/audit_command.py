# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc audit` does: load the plan, run it with a moving line, print what was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedcpsc.commands.literal import literal
from fedcpsc.errors import ConfigError, explain
from fedcpsc.runs.layout import AUDIT_FOLDER
from fedcpsc.typed_yaml import load_as

if TYPE_CHECKING:
    from fedcpsc.audit.figures import AuditFile, Bound
    from fedcpsc.audit.stages import Progress as Tell

__all__ = ["AuditRequest", "audit_table", "run_audit"]

# torch, and whatever imports it, is imported where it is needed: `fedcpsc --help` must not wait for it


@dataclass(frozen=True)
class AuditRequest:
    """What was asked for on the command line.

    Attributes:
        path: YAML file of the audit.
        overrides: `a.b=c` items, the last of equal keys wins.
        out: folder of the audit; None takes `<root>/<name>`, or `audit/` in the run's folder.
        resume: whether to go on with the audit in that folder.
        run: folder of a finished run to audit; None audits from scratch.
        silos: folder of that run's silos' folders.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    resume: bool = False
    run: Path | None = None
    silos: Path | None = None


def run_audit(request: AuditRequest, console: Console) -> AuditFile:
    """Runs it and returns `audit.json`.

    Raises:
        ConfigError: the command line or the configuration is wrong.
        FedcpscError: the audit failed; finished stages stay, and `resume` goes on with the others.
    """
    from fedcpsc.audit.plan import AuditConfig  # noqa: PLC0415

    if (request.run is None) != (request.silos is None):
        given = (str(request.run), str(request.silos))
        raise ConfigError(explain("--run, --silos", given, "belong together", "give both, or neither"))
    config = load_as(AuditConfig, request.path, list(request.overrides))
    audit: AuditFile

    def warn(text: str) -> None:
        console.print(f"cannot be refuted as planned: {text}", style="bold yellow", markup=False, highlight=False)

    with _moving(console, config.name) as tell:
        if request.run is not None and request.silos is not None:
            from fedcpsc.audit.finished_run import FinishedRun  # noqa: PLC0415
            from fedcpsc.audit.over_run import audit_run  # noqa: PLC0415

            out = request.out or request.run / AUDIT_FOLDER
            opened = FinishedRun.open(request.run, request.silos)
            audit = audit_run(config, opened, out, resume=request.resume, tell=tell, warn=warn)
        else:
            from fedcpsc.audit.run import audit_from_scratch  # noqa: PLC0415

            out = request.out or Path(config.root) / config.name
            audit = audit_from_scratch(config, out, resume=request.resume, tell=tell, warn=warn)
    console.print(audit_table(audit))
    verdict = audit["verdict"]
    style = "bold red" if verdict["violation"] else "none" if verdict["testable"] else "bold yellow"
    console.print(verdict["text"], style=style, markup=False, highlight=False)
    console.print(f"left in {out}", markup=False, highlight=False, soft_wrap=True)
    return audit


def audit_table(audit: AuditFile) -> Table:
    """The strongest attack on each policy and surface, with the bounds.

    Args:
        audit: content of `audit.json`.
    """
    from fedcpsc.audit.verdict import strongest  # noqa: PLC0415

    fprs = list(audit["rows"][0]["tpr_at"])
    table = Table(title=literal(audit["config"]["name"]), title_justify="left")
    for column in ("policy", "surface", "attack", "AUC", *(f"TPR at {float(fpr):.1%}" for fpr in fprs)):
        table.add_column(column, justify="right" if column[0] in "AT" else "left")
    for column in ("epsilon >=", "of at most", "claimed"):
        table.add_column(column, justify="right")
    bounds = {(bound["policy"], bound["surface"]): bound for bound in audit["bounds"]}
    for row in strongest(audit["rows"]):
        bound = bounds.pop((row["policy"], row["surface"]), None)
        found = [f"{row['tpr_at'][fpr]:.1%}" for fpr in fprs]
        last = _of_bound(bound) if bound else ("-", "-", "no claim")
        table.add_row(*map(literal, (row["policy"], row["surface"], row["attack"])), f"{row['auc']:.3f}", *found, *last)
    for bound in bounds.values():  # a silo's claim, compared with the student of several
        skipped = ["-"] * (1 + len(fprs))
        names = (bound["policy"], bound["surface"], bound["attack"])
        table.add_row(*map(literal, names), *skipped, *_of_bound(bound))
    return table


def _of_bound(bound: Bound) -> tuple[str, str, str]:
    """The bound, the largest it could have been, and the claim, each with its unit."""
    claim = bound["claimed_epsilon"]
    claimed = "no claim" if claim is None else f"{claim:g} per {bound['claimed_unit']}"
    return f"{bound['epsilon']:.2f} per {bound['unit']}", f"{bound['reachable_epsilon']:.2f}", claimed


@contextmanager
def _moving(console: Console, name: str) -> Iterator[Tell]:
    """A progress bar on a terminal, else a line a stage."""
    if not console.is_terminal:
        yield lambda done, total, text: console.print(literal(f"{name}: {done + 1}/{total} {text}"), highlight=False)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)
