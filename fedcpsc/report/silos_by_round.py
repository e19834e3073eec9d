# SPDX-License-Identifier: Apache-2.0
"""A line for each silo over the rounds, and its figures as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedcpsc.report.blocks import Chart, Table
from fedcpsc.report.figures import Series, lines

__all__ = ["SiloFigure", "silos_by_round"]

_MOST_LINES = 8  # of a chart


@dataclass(frozen=True)
class SiloFigure:
    """What is drawn of each silo.

    Attributes:
        anchor: name of the chart, unique on the page.
        title: title of the chart.
        axis: label of the y axis.
        caption: caption of the table.
        at_the_end: words before the figures of the last round.
        lowest: words for the silos that are drawn where there are too many: those with the lowest last figures.
        show: function that writes a figure.
        top: upper end of the y axis; None lets the figures decide.
        from_zero: whether the y axis begins at 0 in any case.
    """

    anchor: str
    title: str
    axis: str
    caption: str
    at_the_end: str
    lowest: str
    show: Callable[[float], str]
    top: float | None = None
    from_zero: bool = False


def silos_by_round(drawn: SiloFigure, figures: Sequence[tuple[int, Mapping[str, float]]]) -> Chart:
    """Of many silos those with the lowest figures at the end; silos that go alike share a line.

    Args:
        drawn: what the figures are.
        figures: number of each round, and each silo's figure in it; at least one round.
    """
    paths: dict[tuple[tuple[float, float], ...], list[str]] = {}
    silos = list(figures[-1][1])
    for silo in silos:
        path = tuple((float(number), float(now[silo])) for number, now in figures if silo in now)
        paths.setdefault(path, []).append(silo)
    shown = sorted(paths.items(), key=lambda item: item[0][-1][1])[:_MOST_LINES]
    series = [
        Series(_together(names), path, end=f"{drawn.show(path[-1][1])}  {_in_short(names)}") for path, names in shown
    ]
    ending = [f"{_together(names)}: {drawn.show(path[-1][1])}" for path, names in shown]
    description = f"{drawn.at_the_end}: " + "; ".join(ending) + "."
    if len(paths) > len(shown):
        description += f" Of {len(paths)} different courses the {len(shown)} with {drawn.lowest} are drawn."
    title = f"{drawn.title}. {description}"
    svg = lines(drawn.anchor, title, "round", drawn.axis, series, top=drawn.top, from_zero=drawn.from_zero)
    heads = [f"round {number}" for number, _ in figures]
    rows = [(silo, *(drawn.show(now[silo]) if silo in now else "-" for _, now in figures)) for silo in silos]
    if len(silos) <= _MOST_LINES:  # the many, be it silos or rounds, go down the page
        heads, rows = silos, [(head, *column) for head, *column in zip(heads, *(row[1:] for row in rows), strict=True)]
    return Chart(drawn.title, description, svg, Table.of(drawn.caption, ("", *heads), rows))


def _in_short(silos: list[str]) -> str:
    return silos[0] if len(silos) == 1 else f"{len(silos)} silos alike"


def _together(silos: list[str]) -> str:
    return ", ".join(silos) if len(silos) <= 2 else f"{len(silos)} silos alike, {silos[0]} to {silos[-1]}"
