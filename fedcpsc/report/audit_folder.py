# SPDX-License-Identifier: Apache-2.0
"""An audit's folder: `audit.json` and the plots it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from fedcpsc.errors import AuditError, ConfigError, explain
from fedcpsc.runs.audit_file import AUDIT_FILE, read_audit_file
from fedcpsc.typed_yaml import Strict, validate

__all__ = ["AuditFacts", "Plot", "Verdict", "read_audit"]

_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
_LARGEST = 2_000_000  # bytes of one plot

Value: TypeAlias = str | int | float | bool | None


class _Open(Strict):
    """As Strict, but an audit may say more than a report shows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Verdict(_Open):
    """Whether a claim was disproved, and what that means.

    Attributes:
        violation: whether a claim was refuted.
        text: verdict in words.
        testable: whether every claim could have been refuted; None where the audit is older than this field.
    """

    violation: bool
    text: str
    testable: bool | None = None

    @property
    def in_short(self) -> str:
        """Two to five words, which never say more than the audit could have found."""
        if self.violation:
            return "Violation"
        if self.testable is None:
            return "No violation found; what could have been found is not known"
        return "No violation found" if self.testable else "Not every claim could be tested"


class _Plot(_Open):
    file: str
    title: str
    alt: str
    private: bool
    silo: str | None = None


class _Audit(_Open):
    schema_: Literal[1]
    verdict: Verdict
    rows: tuple[dict[str, Any], ...]
    bounds: tuple[dict[str, Any], ...]
    plots: tuple[_Plot, ...]
    facts: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Plot:
    """A picture. `private`: for a silo's owner alone."""

    title: str
    alt: str
    private: bool
    kind: str
    content: bytes


@dataclass(frozen=True)
class AuditFacts:
    """What an audit found.

    Attributes:
        verdict: verdict on the claims.
        rows: one mapping for each attack on each surface.
        bounds: one mapping for each lower bound.
        plots: plots that the reader may see.
        run: name of the run that was audited; None where the audit made teachers and students of its own.
    """

    verdict: Verdict
    rows: tuple[dict[str, Value], ...]
    bounds: tuple[dict[str, Value], ...]
    plots: tuple[Plot, ...]
    run: str | None


def read_audit(folder: Path, *, run: str, owner: str | None) -> AuditFacts:
    """Reads it; what is marked `private` is for the owner of the silo it names, and else its file is not even opened.

    Args:
        run: name of the run that the report is about.
        owner: name of the silo whose owner alone will read the report; None for a public one.

    Raises:
        AuditError: the folder holds no audit, a damaged one, or one of another run.
    """
    path = folder / AUDIT_FILE
    tree = read_audit_file(folder)
    tree["schema_"] = tree.pop("schema")
    try:
        read = validate(_Audit, tree, str(path))
    except ConfigError as error:
        raise AuditError(explain("audit", str(path), f"is damaged ({error})", "run the audit again")) from error
    of = read.facts.get("run")
    if of is not None and of != run:
        raise AuditError(explain("audit", str(folder), f"is of run {of!r}, not of {run!r}", "audit this run"))
    plots = [_plot(folder, plot) for plot in read.plots if _may_read(owner, plot.private, plot.silo)]
    return AuditFacts(read.verdict, _flat(read.rows, owner), _flat(read.bounds, owner), tuple(plots), of)


def _may_read(owner: str | None, private: bool, silo: str | None) -> bool:
    """What is private and names no silo is for nobody."""
    return not private or (owner is not None and owner == silo)


def _flat(rows: tuple[dict[str, Any], ...], owner: str | None) -> tuple[dict[str, Value], ...]:
    """The figures of each row: scalars, and mappings of scalars as "key subkey"; curves are the plots' matter."""
    seen = (row for row in rows if _may_read(owner, row.get("private", False), row.get("silo")))
    return tuple(dict(_figures(row)) for row in seen)


def _figures(row: dict[str, Any]) -> Iterator[tuple[str, Value]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from ((f"{key} {part}", inner) for part, inner in value.items() if _is_scalar(inner))
        elif _is_scalar(value) and key != "private":
            yield key, value


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | None)


def _plot(folder: Path, plot: _Plot) -> Plot:
    path = (folder / plot.file).resolve()
    kind = _KINDS.get(path.suffix.lower())
    if kind is None or not path.is_relative_to(folder.resolve()):
        wanted = f"must be {' or '.join(_KINDS)} inside the audit's folder"
        raise AuditError(explain("plot", plot.file, wanted, "run the audit again"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AuditError(
            explain("plot", str(path), f"cannot be read ({error.strerror})", "run the audit again")
        ) from error
    if len(content) > _LARGEST:
        raise AuditError(explain("plot", f"{len(content)} bytes", f"must be at most {_LARGEST}", "draw it smaller"))
    return Plot(plot.title, plot.alt, plot.private, kind, content)
