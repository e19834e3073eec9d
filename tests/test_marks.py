# SPDX-License-Identifier: Apache-2.0
"""What the fast tests leave out is named, exists, and is run by `make test`."""

import re
from pathlib import Path

import pytest
from support.marks import ALONE, LEFT_OUT, group_of, mark_of

ROOT = Path(__file__).parents[1]
PLACES = [place for places in LEFT_OUT.values() for place in places]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_left_out_is_there(place):
    path, _, name = place.partition("::")
    assert (ROOT / path).exists()
    if name:
        assert re.search(rf"^ *(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_everything_left_out_has_a_reason_and_nothing_is_named_twice():
    assert all(reason for places in LEFT_OUT.values() for reason in places.values())
    assert len(set(PLACES)) == len(PLACES)


def test_a_marker_reaches_all_cases_of_a_test_and_no_test_of_a_longer_name():
    assert mark_of("tests/e2e/test_run_smoke.py::test_x[1]")[0] == "e2e"
    assert mark_of("tests/models/test_classifiers.py::test_small_architectures_learn[lenet5]")[0] == "slow"
    assert mark_of("tests/models/test_classifiers.py::test_small_architectures_learn_more") is None
    assert mark_of("tests/test_cli.py::test_seeds") is None


def test_what_starts_processes_is_one_workers_and_a_file_stays_together():
    for nodeid in ("tests/e2e/test_run_smoke.py::test_x", "tests/report/test_chromium.py::test_y[1]"):
        assert group_of(nodeid) == ALONE
    assert group_of("tests/runs/test_damage.py::test_x[a::b]") == "tests/runs/test_damage.py"
    assert group_of("tests/test_yaml_fuzz.py::test_x") == "tests/test_yaml_fuzz.py"


def test_the_makefile_leaves_out_by_these_markers_for_the_inner_loop_alone():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f'-m "not ({" or ".join(LEFT_OUT)})"' in makefile
    assert re.findall(r"^test:.*\n\t(.*)", makefile, re.MULTILINE) == ["$(PYTEST)"]
    (everything,) = re.findall(r"^PYTEST := ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
    assert everything.count(" -m ") == everything.count(" -m pytest") == 1
