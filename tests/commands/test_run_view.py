# SPDX-License-Identifier: Apache-2.0
import io

import pytest
from rich.console import Console
from support.report_runs import LONG_SILOS
from support.run_results import line, result

from fedcpsc.commands.run_view import RunView, result_table, seeds_table
from fedcpsc.commands.seeds_summary import summarise


def printed(*things, terminal=False, width=140):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
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
    assert "silo-1 refused: 2 budget" in text()
    assert "per record" in text()
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
    assert f"per {shown}" in text()
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


def test_an_event_is_one_line_and_no_markup():
    console, text = printed()
    with RunView(console, "digits") as view:
        view.event("silo [bold]x[/] is no longer asked")
    assert text().splitlines()[-1] == "digits: silo [bold]x[/] is no longer asked"


def test_a_suspicion_that_a_line_has_shown_is_not_told_again_as_an_event():
    console, text = printed()
    told = "silo-1 is suspected: contradicted; aggregation.exclude: [silo-1] leaves it out"
    with RunView(console, "digits") as view:
        view.line(line(silos={"silo-1": {"answers": 1, "answers_left": 1, "suspicion": "contradicted"}}))
        view.event(told)
        view.event("silo-2 is no longer asked")
    assert text().count("is suspected") == 1
    assert f"alarm: {told}" in text()
    assert "silo-2 is no longer asked" in text()


def test_a_silo_that_is_no_longer_asked_is_told_once_by_event_or_line():
    console, text = printed()
    stopped = {"answers": 1, "answers_left": 0, "stopped": "budget"}
    with RunView(console, "digits") as view:
        view.event("silo-1 is no longer asked: budget")
        view.line(line(silos={"silo-1": stopped}))
        view.line(line(silos={"silo-1": stopped, "silo-2": stopped}))
        view.event("silo-2 is no longer asked: budget")
    for silo in ("silo-1", "silo-2"):
        assert text().count(f"digits: {silo} is no longer asked: budget") == 1


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


def five_silos_with_long_names():
    outcome = result() | {"ensemble": {"accuracy": 0.958, "rule": "class_prior_log"}}
    silo = outcome["silos"][0]
    promises = [
        (False, None, None),
        (True, 3.5, "record"),
        (True, 8.0, "person"),
        (False, None, None),
        (True, 1, "record"),
    ]
    outcome["silos"] = [
        silo | {"id": name, "dp": dp, "epsilon": epsilon, "unit": unit, "answers": 20_000, "train_size": 123_456}
        for name, (dp, epsilon, unit) in zip(LONG_SILOS, promises, strict=True)
    ]
    outcome["silos"][2]["refusals"] = {"budget": 2, "out_of_service": 12}
    return outcome


def test_at_80_columns_no_name_is_cut_and_every_figure_is_on_one_line_and_aligned():
    _, text = printed(result_table(five_silos_with_long_names()), width=80)
    lines = text().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text()
    names = "".join(row.split("│")[1].strip() for row in lines if row.startswith("│"))
    for name in (*LONG_SILOS, "(class_prior_log)"):
        assert name in names
    rows = [row.split("│")[2:] for row in lines if row.startswith("│") and "%" in row]
    assert len(rows) == 7
    assert all(cells[4].strip().endswith("%") for cells in rows)
    assert [cells[1].strip() for cells in rows[:5]] == ["20,000"] * 5
    assert len({len(cells[1].rstrip()) for cells in rows[:5]}) == 1, "figures end in one column"
    assert "regional-diagnostics-centre-south-west refused: 2 budget, 12 out_of_service" in " ".join(text().split())


def test_at_80_columns_the_moving_line_keeps_bar_accuracy_and_time_left():
    console, text = printed(terminal=True, width=80)
    with RunView(console, "a-run-of-five-hospitals-with-a-very-long-name") as view:
        view.line(line(round=12, rounds=20, answers_used=120_000, answers_budget=200_000, seconds_left=3675))
    for part in ("round 12/20", "student 50.0%", "61 min 15 s left", "━"):
        assert part in text()
    assert "…" not in text()


def test_seeds_fit_80_columns():
    _, text = printed(seeds_table(summarise("a-run-of-five-hospitals", [result(i, 0.8) for i in range(10)])), width=80)
    assert max(map(len, text().splitlines())) <= 80
    assert text().count("80.0%") == 22
