# SPDX-License-Identifier: Apache-2.0
"""The time line's drawing: few bars however many stretches, and all its figures in words."""

from fedcpsc.report.time_line import time_line_chart
from fedcpsc.runs.timeline import Span


def stretches(rounds, silos=3):
    found = []
    for r in range(rounds):
        found.append(Span("fit", 10.0 * r, 10.0 * r + 6, r + 1))
        found.append(Span("waiting", 10.0 * r + 6, 10.0 * r + 10, r + 1))
        for s in range(silos):
            outcome = "lost" if (r, s) == (1, 0) else "answer"
            found.append(Span("query", 10.0 * r, 10.0 * r + 9, r + 1, f"silo-{s}", 5, outcome))
    return tuple(found)


def test_what_is_drawn_is_also_said():
    chart = time_line_chart(stretches(4))
    assert "only waited 40.0 %" in chart.description
    assert "after the first round 40.0 %" in chart.description
    rows = {row[0].text: row[1].text for row in chart.table.rows}
    assert rows["server: waiting"] == "16.0"
    assert rows["silo-0: 3 answer, 1 lost"] == "36.0"
    for name in ("server", "waiting", "silo-0", "silo-2", "only waiting"):
        assert f">{name}<" in chart.svg, name


def test_thousands_of_stretches_stay_a_small_drawing():
    small, large = (len(time_line_chart(stretches(rounds)).svg) for rounds in (50, 3000))
    assert large < 10 * small


def test_of_many_silos_the_slowest_are_drawn():
    chart = time_line_chart((*stretches(2, silos=30), Span("query", 0, 99, 1, "slow", 5, "answer")))
    assert "Of 31 silos the 10 slowest are drawn." in chart.description
    assert ">slow<" in chart.svg
    assert ">silo-29<" not in chart.svg
