# SPDX-License-Identifier: Apache-2.0
"""A page about a hundred silos can still be read."""

import dataclasses

import numpy as np
import pytest

from fedcpsc.report.blocks import LONG, Chart, Folded, Section, Table
from fedcpsc.report.sections.confusion import confusions
from fedcpsc.report.sections.outcome import outcome
from fedcpsc.report.sections.silos import budgets, contributions
from fedcpsc.report.sections.timing import times
from fedcpsc.runs.read import gather


def many(facts, count):
    """The same facts of so many silos."""
    names = [f"silo-{i}" for i in range(count)]
    silos = tuple(
        dataclasses.replace(facts.silos[0], id=name, teacher_accuracy=i / count) for i, name in enumerate(names)
    )
    left = {name: {"answers": 10, "answers_left": 90, "stopped": None} for name in names}
    lines = tuple(line | {"silos": left} if line["phase"] == "round" else line for line in facts.lines)
    matrix = next(iter(facts.details.teachers.values()))
    details = dataclasses.replace(
        facts.details,
        teachers=dict.fromkeys(names, matrix),
        weights={name: np.full(len(facts.details.images), 1 / count) for name in names},
    )
    return dataclasses.replace(facts, silos=silos, lines=lines, details=details)


@pytest.fixture(scope="module")
def hundred(thirty):
    return many(gather(thirty), 100)


def open_tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


@pytest.mark.parametrize("part", [outcome, budgets, contributions, confusions, times])
def test_what_each_of_many_silos_did_is_behind_a_fold(hundred, part):
    section = part(hundred)
    assert all(len(table.rows) <= LONG for table in open_tables(section))
    assert len(section.blocks) < 12
    folded = [block for block in section.blocks if isinstance(block, Folded)]
    assert any(len(block.blocks) == 100 or len(getattr(block.blocks[0], "rows", ())) == 100 for block in folded)


def test_the_outcome_in_short_comes_first(hundred):
    short = outcome(hundred).blocks[0]
    said = [[cell.text for cell in row] for row in short.rows]
    assert said[:2] == [["best of 100 teachers", "99.0 %"], ["median of 100 teachers", "50.0 %"]]
    assert [row[0] for row in said[2:]] == [f"ensemble ({hundred.config.aggregation.rule})", "student"]


def test_a_budgets_figures_have_a_row_for_each_silo_where_they_are_many(hundred, thirty):
    def figures(run):
        (chart,) = [block for block in budgets(run).blocks if isinstance(block, Chart)]
        return chart.table

    rounds = len(hundred.rounds)
    assert (len(figures(hundred).rows), len(figures(hundred).columns)) == (100, rounds + 1)
    few = gather(thirty)
    assert (len(figures(few).rows), len(figures(few).columns)) == (rounds, len(few.silos) + 1)
    assert figures(few).rows[0][0].text == "round 1"
