# SPDX-License-Identifier: Apache-2.0
"""The time line of a run as a drawing: when the server worked and waited, and when each silo had a query."""

from __future__ import annotations

from collections.abc import Sequence

from fedcpsc.report.blocks import Chart, Table, duration, percent
from fedcpsc.report.figures import Lane, lanes
from fedcpsc.runs.timeline import QUERY, WAITING, Span, waiting_shares

__all__ = ["time_line_chart"]

_MOST_SILOS = 10
_FINEST = 400  # bars that a lane can show apart

Spans = list[tuple[float, float]]


def time_line_chart(stretches: tuple[Span, ...]) -> Chart:
    """Of many silos, those that were waited for longest."""
    total = max(stretch.end for stretch in stretches)
    share, later = waiting_shares(stretches, total)
    by_silo: dict[str, list[Span]] = {}
    for stretch in stretches:
        if stretch.what == QUERY:
            by_silo.setdefault(stretch.silo, []).append(stretch)
    slowest = sorted(by_silo, key=lambda silo: -sum(query.seconds for query in by_silo[silo]))[:_MOST_SILOS]
    rows = [
        Lane("server", "work", _merged([s for s in stretches if s.what not in (QUERY, WAITING)], total)),
        Lane("waiting", "only waiting", _merged([s for s in stretches if s.what == WAITING], total)),
    ]
    rows += [Lane(silo, "query at a silo", _spans(by_silo[silo], total)) for silo in sorted(slowest)]
    description = (
        f"Of {duration(total)} the server only waited {percent(share)}, and after the first round {percent(later)}."
    )
    if len(by_silo) > len(slowest):
        description += f" Of {len(by_silo)} silos the {len(slowest)} slowest are drawn."
    title = "Time line"
    svg = lanes("time-line-chart", f"{title}. {description}", "seconds since the run began", rows)
    return Chart(title, description, svg, _table(stretches, by_silo, total))


def _table(stretches: Sequence[Span], by_silo: dict[str, list[Span]], total: float) -> Table:
    seconds: dict[str, float] = {}
    for stretch in stretches:
        if stretch.what != QUERY:
            seconds[stretch.what] = seconds.get(stretch.what, 0.0) + stretch.seconds
    lines = [(f"server: {what}", f"{spent:.1f}", percent(spent / max(total, 1e-9))) for what, spent in seconds.items()]
    for silo, queries in by_silo.items():
        outcomes: dict[str, int] = {}
        for query in queries:
            outcomes[query.outcome] = outcomes.get(query.outcome, 0) + 1
        outcomes_shown = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        lines.append((f"{silo}: {outcomes_shown}", f"{sum(query.seconds for query in queries):.1f}", ""))
    return Table.of("Seconds of each kind, and of each silo's queries", ("", "seconds", "of all"), lines)


def _merged(stretches: Sequence[Span], total: float) -> Spans:
    """As few spans as show the same: what follows within a hair is one."""
    spans: Spans = []
    for stretch in sorted(stretches, key=lambda s: s.begin):
        if spans and stretch.begin - spans[-1][1] < total / _FINEST:
            spans[-1] = (spans[-1][0], max(spans[-1][1], stretch.end))
        elif stretch.seconds > 0:
            spans.append((stretch.begin, stretch.end))
    return spans


def _spans(queries: Sequence[Span], total: float) -> Spans:
    """One for each query, or merged where they could not be drawn apart."""
    if len(queries) > _FINEST:
        return _merged(queries, total)
    return [(query.begin, query.end) for query in sorted(queries, key=lambda s: s.begin)]
