# SPDX-License-Identifier: Apache-2.0
import io

import pytest
from rich.console import Console
from support.run_results import line, result

from fedcpsc.commands.run_view import RunView, result_table, seeds_table
from fedcpsc.commands.seeds_summary import summarise


def printed(*things, terminal=False):
    console = Console(file=io.StringIO(), width=140, force_terminal=terminal, color_system=None)
    for thing in things:
        console.print(thing)
    return console, console.file.getvalue


def test_the_table_names_every_teacher_the_ensemble_the_student_and_the_cost():
    _, text = printed(result_table(result()))
    rows = {row.split("│")[1].strip(): row for row in text().splitlines() if row.startswith("│")}
    assert list(rows) == ["teacher silo-0", "teacher silo-1", "ensemble (uniform)", "student"]
    assert "640" in rows["teacher silo-0"]
    assert "no dp" in rows["teacher silo-0"]
    assert "80.0%" in rows["teacher silo-0"]
    assert "3.50" in rows["teacher silo-1"]
    assert "2 budget" in rows["teacher silo-1"]
    assert "95.0%" in rows["ensemble (uniform)"]
    assert "90.0%" in rows["student"]
    for cost in ("5,000 answers per silo", "2.0 MB sent", "53.4 kB received", "2 min 11 s", "31 s"):
        assert cost in text()


def test_a_deployment_without_measured_accuracies_has_a_table_too():
    _, text = printed(result_table(result(student=None, ensemble=None)))
    assert "%" not in text()


def test_of_a_hundred_silos_a_screenful_is_shown_those_in_trouble_first():
    outcome = result()
    silo = outcome["silos"][0] | {"refusals": {}}
    outcome["silos"] = [silo | {"id": f"silo-{i}", "teacher_accuracy": i / 100} for i in range(100)]
    outcome["silos"][70]["refusals"] = {"budget": 1}
    _, text = printed(result_table(outcome))
    names = [row.split("│")[1].strip() for row in text().splitlines() if row.startswith("│")]
    assert names[:3] == ["teacher silo-70", "teacher silo-0", "teacher silo-1"]
    assert names[20:] == ["80 more in the report, median", "ensemble (uniform)", "student"]
    assert "1 budget" in text()
    assert "58.5%" in text()  # of 0.19 to 0.99 without 0.70


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[/]", "[/]"),
        ("[bold]north[/bold]", "[bold]north[/bold]"),
        ("[link=http://x]y", "[link=http://x]y"),
        (":warning: \\[", ":warning: \\["),
        ("a\x1b[2Jb\rc", r"a\x1b[2Jb\rc"),
    ],
)
def test_what_a_silo_calls_itself_is_shown_and_does_nothing(name, shown):
    outcome = result()
    outcome["silos"][0]["id"] = name
    outcome["silos"][1]["unit"] = name
    _, text = printed(result_table(outcome))
    assert f"teacher {shown}" in text()
    assert f"3.50 per {shown}" in text()
    assert "\x1b" not in text()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_round_shows_where_the_run_is(terminal):
    console, text = printed(terminal=terminal)
    with RunView(console, "digits") as view:
        view.line(line())
    for part in (
        "round 2/4",
        "bank 2,500",
        "answers 2,500/5,000",
        "student 50.0%",
        "ensemble 95.0%",
        "1 min 15 s left",
    ):
        assert part in text()


def test_without_a_terminal_each_round_is_one_line_and_the_final_fit_one():
    console, text = printed()
    with RunView(console, "digits") as view:
        view.line(line())
        for share in (0.7, 0.9):
            view.line({k: v for k, v in line(phase="final", share_done=share).items() if k != "student_accuracy"})
        view.line(line(phase="final", share_done=1.0))
    assert len(text().splitlines()) == 3
    assert text().count("final fit") == 1


def test_the_alarm_is_told_once_for_each_time_it_starts():
    console, text = printed()
    with RunView(console, "digits") as view:
        for alarm in (True, True, False, True):
            view.line(line(alarm=alarm, entropy=0.2))
    assert text().count("alarm") == 2
    assert "0.20" in text()


def test_seeds_are_shown_with_mean_and_spread():
    _, text = printed(seeds_table(summarise("digits", [result(1, 0.8), result(2, 0.9)])))
    assert "digits, 2 seeds" in text()
    student = next(row for row in text().splitlines() if "student" in row)
    for part in ("85.0%", "7.1%", "80.0% 90.0%"):
        assert part in student
