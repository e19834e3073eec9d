# SPDX-License-Identifier: Apache-2.0
"""Table, summary, picture and page of a sweep say what its runs say, and hide none that failed."""

import csv
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fedcpsc.sweep.chart import dot_chart
from fedcpsc.sweep.layout import PAGE_FILE, PICTURE_FILE, SUMMARY_FILE, SWEEP_FILE, TABLE_FILE, TYPED_TABLE_FILE
from fedcpsc.sweep.page import headline
from fedcpsc.sweep.scale import scale_of
from fedcpsc.sweep.table import row_of, summarise
from fedcpsc.sweep.words import as_override, points, shortened, spread
from fedcpsc.sweep.write import Attempt, write_results

STUDENTS = {
    ("uniform", 1): 0.90,
    ("uniform", 2): 0.92,
    ("uniform", 3): 0.94,
    ("entropy", 1): 0.91,
    ("entropy", 3): 0.96,
}
ATTEMPT = Attempt(2, 12.5, 3, ["runs of 2 commits"])


@pytest.fixture
def written(planned, rows):
    """The sweep's folder with results of runs of which one failed."""
    sweep = planned()
    sweep.folder.mkdir()
    found = rows(sweep, STUDENTS)
    write_results(sweep, found, summarise(sweep, found), ATTEMPT)
    return sweep.folder


def test_means_and_spreads_are_of_the_finished_runs_and_differences_seed_by_seed(planned, rows):
    sweep = planned()
    uniform, entropy = summarise(sweep, rows(sweep, STUDENTS))
    assert (uniform.count, uniform.missing, entropy.count, entropy.missing) == (3, 0, 2, 1)
    assert uniform.student["mean"] == pytest.approx(0.92)
    assert uniform.student["std"] == pytest.approx(0.02)
    assert entropy.difference["values"] == pytest.approx([0.01, 0.02])
    assert uniform.difference["mean"] is None
    assert (spread(uniform.student), points(entropy.difference)) == ("92.0 ± 2.0", "+1.5 ± 0.7")


def test_the_table_has_a_row_for_each_run_those_that_failed_too(written):
    with (written / TABLE_FILE).open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["setting"], row["seed"], row["student"]) for row in found] == [
        ("uniform", "1", "0.9"),
        ("uniform", "2", "0.92"),
        ("uniform", "3", "0.94"),
        ("entropy", "1", "0.91"),
        ("entropy", "2", ""),
        ("entropy", "3", "0.96"),
    ]
    assert found[4]["state"] == "failed"
    assert found[4]["failure"] == "DataError: gone"
    assert found[0]["aggregation.rule"] == "uniform"
    assert found[0]["versions"] == "fedcpsc 0.1.0"


def test_the_typed_table_and_the_json_say_the_same(written):
    typed = pq.read_table(written / TYPED_TABLE_FILE)
    assert (typed.schema.field("seed").type, typed.schema.field("student").type) == (pa.int64(), pa.float64())
    file = json.loads((written / SWEEP_FILE).read_text())
    assert typed.to_pylist() == file["runs"]
    assert (file["schema"], file["silos_made"], file["notes"]) == (1, 3, ["runs of 2 commits"])
    with (written / SUMMARY_FILE).open(newline="") as text:
        summary = list(csv.DictReader(text))
    assert float(summary[1]["student_mean"]) == file["settings"][1]["student"]["mean"] == pytest.approx(0.935)
    assert summary[1]["missing"] == "1"


@pytest.mark.parametrize(
    ("values", "kind", "held"),
    [
        ([4, 8], pa.int64(), [4, 8]),
        ([0.5, 1], pa.float64(), [0.5, 1.0]),
        ([True, False], pa.bool_(), [True, False]),
        ([{"smooth": 1.0}, {"strokes": 1.0}], pa.string(), ['{"smooth": 1.0}', '{"strokes": 1.0}']),
    ],
)
def test_a_varied_key_has_the_type_of_its_values(planned, rows, values, kind, held):
    key = {int: "student.width", float: "student.noise", bool: "student.flip", dict: "synthesis.prior"}[type(values[0])]
    sweep = planned(settings={}, grid={key: values}, seeds=[1])
    sweep.folder.mkdir()
    found = rows(sweep, {})
    write_results(sweep, found, summarise(sweep, found), ATTEMPT)
    column = pq.read_table(sweep.folder / TYPED_TABLE_FILE).column(key)
    assert (column.type, column.to_pylist()) == (kind, held)


def test_the_page_stands_alone_names_what_failed_and_shows_every_setting(written):
    page = (written / PAGE_FILE).read_text()
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", page) == []
    assert "<script" not in page
    assert "entropy-seed2: DataError: gone" in page
    assert "92.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}2.0" in page
    assert "fedcpsc sweep plan.yaml" in page
    assert "Runs of 2 commits." in page


def test_names_are_text_on_the_page_and_in_the_picture(planned, rows):
    names = {"<b>bold</b> & $x_1$ und größer": {}, "_hidden": {"student.width": 4}}
    sweep = planned(settings=names, seeds=[1])
    sweep.folder.mkdir()
    found = rows(sweep, {(name, 1): 0.5 for name in names})
    write_results(sweep, found, summarise(sweep, found), ATTEMPT)
    page = (sweep.folder / PAGE_FILE).read_text()
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; $x_1$" in page


@pytest.mark.parametrize("count", [1, 2, 20])
def test_the_picture_has_room_for_one_to_twenty_settings(planned, rows, count):
    sweep = planned(settings={}, grid={"student.width": list(range(1, count + 1))}, seeds=[1, 2])
    sweep.folder.mkdir()
    found = rows(sweep, {(run.setting.name, run.seed): 0.8 + 0.01 * run.seed for run in sweep.runs})
    write_results(sweep, found, summarise(sweep, found), ATTEMPT)
    with Image.open(sweep.folder / PICTURE_FILE) as picture:
        assert picture.width == 1200
        assert picture.height / picture.width == pytest.approx((1.3 + 0.42 * count) / 8, abs=0.01)


def test_a_sweep_of_which_nothing_finished_says_so(planned, rows):
    sweep = planned()
    sweep.folder.mkdir()
    found = rows(sweep, {})
    summaries = summarise(sweep, found)
    write_results(sweep, found, summaries, ATTEMPT)
    assert scale_of(summaries) is None
    assert "no student was measured yet" in headline(sweep, summaries)
    assert "none has finished" in (sweep.folder / PAGE_FILE).read_text()


def test_the_axis_holds_every_student_and_ensembles_only_where_differences_stay_visible(planned, rows):
    sweep = planned()
    near = summarise(sweep, rows(sweep, STUDENTS))
    scale = scale_of(near)
    assert all(scale.holds(value) for value in STUDENTS.values())
    assert scale.holds(0.97)
    low = scale_of(summarise(sweep, rows(sweep, {key: value - 0.5 for key, value in STUDENTS.items()})))
    assert not low.holds(0.97)
    assert low.high - low.low < 12
    alike = scale_of(summarise(sweep, rows(sweep, dict.fromkeys(STUDENTS, 0.5))))
    assert alike.high - alike.low >= 2
    assert 'x="' in dot_chart("t", scale, near)
    certain = scale_of(summarise(sweep, rows(sweep, dict.fromkeys(STUDENTS, 1.0))))
    assert certain.high == 100


def test_a_damaged_result_is_a_failed_row_and_a_run_not_begun_is_missing(planned):
    sweep = planned()
    damaged, missing = sweep.runs[:2]
    damaged.folder.mkdir(parents=True)
    (damaged.folder / "result.json").write_text("{")
    assert row_of(damaged, None, None).state == "failed"
    assert "damaged" in row_of(damaged, None, None).failure
    assert row_of(missing, None, None).state == "missing"
    assert row_of(missing, None, "killed").failure == "killed"


def test_overrides_read_back_as_what_they_were():
    assert as_override("a.b", "uniform") == "a.b=uniform"
    assert as_override("a.b", "1") == 'a.b="1"'
    assert as_override("a.b", "true") == 'a.b="true"'
    assert as_override("a.b", "") == 'a.b=""'
    assert as_override("a.b", {"smooth": 1.0}) == 'a.b={"smooth": 1.0}'
    assert as_override("a.b", None) == "a.b=null"


def test_long_names_are_cut_in_the_middle():
    assert shortened("short", 5) == "short"
    assert shortened("a" * 10 + "b" * 10, 9) == "aaaa…bbbb"
