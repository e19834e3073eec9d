# SPDX-License-Identifier: Apache-2.0
"""Where the time went: waiting against work, round by round, and the time line."""

from __future__ import annotations

from fedcpsc.report.blocks import (
    Block,
    Chart,
    Note,
    Section,
    Table,
    duration,
    folded_where_long,
    percent,
)
from fedcpsc.report.figures import Series, bars
from fedcpsc.report.time_line import time_line_chart
from fedcpsc.runs.read import RunFacts

__all__ = ["times"]


def times(run: RunFacts) -> Section:
    """Waiting against work."""
    title = "Waiting and work"
    if not run.rounds:
        return Section("time", title, (Note("No round has ended yet."),))
    waited, worked, rows = [], [], []
    before_s = before_w = 0.0
    for line in run.rounds:
        seconds, waiting = line["seconds"] - before_s, line["waiting_s"] - before_w
        if waiting < 0:  # files of earlier versions count from each resumption anew
            waiting = line["waiting_s"]
        before_s, before_w = line["seconds"], line["waiting_s"]
        work = max(0.0, seconds - waiting)
        worked.append((float(line["round"]), work))
        waited.append((float(line["round"]), waiting))
        rows.append((f"round {line['round']}", f"{work:.2f}", f"{waiting:.2f}"))
    total_wait, total_work = sum(y for _, y in waited), sum(y for _, y in worked)
    share = total_wait / max(total_wait + total_work, 1e-9)
    description = (
        f"Over the rounds the server worked {duration(total_work)} and waited {duration(total_wait)} for answers "
        f"({percent(share)})."
    )
    svg = bars(
        "time-chart",
        f"{title}. {description}",
        "round",
        "seconds",
        [Series("work", worked), Series("waiting for answers", waited)],
    )
    table = Table.of("Seconds of each round", ("", "work", "waiting"), rows)
    blocks: list[Block] = [Chart(title, description, svg, table)]
    if run.timeline:
        blocks.append(time_line_chart(run.timeline))
    replies = [(silo.id, f"{silo.reply_seconds:.3f}") for silo in run.silos if silo.reply_seconds is not None]
    if replies:
        text = "Median seconds from a query to its answer, as the server saw it"
        blocks.append(folded_where_long(Table.of(text, ("silo", "seconds"), replies)))
    return Section("time", title, tuple(blocks))
