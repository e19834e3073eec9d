# SPDX-License-Identifier: Apache-2.0
"""A run's facts -> one self-contained HTML page: no script, no font, no address outside the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedcpsc.errors import RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.report.audit_folder import AuditFacts, read_audit
from fedcpsc.report.blocks import Section
from fedcpsc.report.owner_facts import OwnerFacts, read_owner
from fedcpsc.report.sections import at_silos as at_silos_section
from fedcpsc.report.sections import audit as audit_section
from fedcpsc.report.sections import belief, confusion, earlier_runs, outcome, repeat, silos, summary, timing
from fedcpsc.report.sections import headline as headline_section
from fedcpsc.report.sections import owner as owner_section
from fedcpsc.runs.layout import REPORT_FILE
from fedcpsc.runs.read import RunFacts, gather

__all__ = ["fill_page", "render", "style", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_STYLES = (
    "colours",
    "layout",
    "words",
    "tables",
    "pictures",
    "print",
)  # later ones may undo earlier ones


def write_report(
    run_dir: Path, out: Path | None = None, *, audit_dir: Path | None = None, silo_dir: Path | None = None
) -> Path:
    """Writes the report of a run, finished or not; returns where to.

    Args:
        out: file to write; None takes one in the run's folder, or, with `silo_dir`, in the silo's own, so that what is
            private stays there.
        audit_dir: folder of an audit of this run.
        silo_dir: folder of one silo of this run: adds what only its owner may see, private plots included.

    Raises:
        RunError: it is no run's folder, a file in it is damaged, or the silo did not take part.
        BankError, AuditError, SiloError: what belongs to it is damaged.
    """
    run = gather(run_dir)
    owner = None if silo_dir is None else read_owner(silo_dir)
    if owner is not None and owner.silo not in {silo.id for silo in run.silos}:
        took_part = f"took no part in this run ({', '.join(silo.id for silo in run.silos)} did)"
        raise RunError(explain("--private", owner.silo, took_part, "give the folder of a silo of this run"))
    reader = None if owner is None else owner.silo
    audit = None if audit_dir is None else read_audit(audit_dir, run=run.name, owner=reader)
    if out is None:
        out = (run_dir if silo_dir is None else silo_dir) / REPORT_FILE
    text = render(run, audit, owner)
    try:
        write_whole(out, text, private=owner is not None)
    except OSError as error:
        raise RunError(explain("--out", str(out), f"cannot be written ({error.strerror})", "choose another")) from error
    return out


def style() -> str:
    """The page's style sheet."""
    return "".join((_TEMPLATES / "style" / f"{name}.css").read_text(encoding="utf-8") for name in _STYLES)


def render(run: RunFacts, audit: AuditFacts | None = None, owner: OwnerFacts | None = None) -> str:
    """The page. Without `owner` it holds nothing that is a silo's own."""
    sections = [
        summary.in_short(run),
        *([owner_section.owners_part(owner)] if owner else []),
        outcome.accuracy(run),
        outcome.outcome(run),
        *at_silos_section.at_silos(run),
        summary.what_was_run(run),
        belief.belief(run),
        *earlier_runs.earlier_runs(run),
        silos.budgets(run),
        silos.queries(run),
        confusion.confusions(run),
        silos.contributions(run),
        timing.times(run),
        audit_section.audited(audit),
        repeat.repeat(run),
    ]
    version = None if run.result is None else run.result["versions"].get("fedcpsc")
    return fill_page(
        title=f"Run {run.name}",
        headline=headline_section.headline(run),
        sections=sections,
        footer=f"Drawn by fedcpsc report from the run's folder{f' (run by fedcpsc {version})' if version else ''}.",
        private=owner is not None,
    )


def fill_page(title: str, headline: str, sections: Sequence[Section], footer: str, *, private: bool = False) -> str:
    """A whole page of these sections, self-contained.

    Args:
        title: title of the page.
        headline: the page in one sentence.
        sections: sections of the page, in order.
        footer: words at the end.
        private: whether it holds figures of one silo that its owner alone may see.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        headline=headline,
        private=private,
        sections=sections,
        style=style(),
        footer=footer,
    )
