# SPDX-License-Identifier: Apache-2.0
"""What a run writes is JSON as its standard has it."""

import math
from pathlib import Path

import pytest
from support.run_results import line

from fedcpsc.errors import RunError
from fedcpsc.runs.metrics import append_line
from fedcpsc.strict_json import format_json, parse_json


def test_what_is_finite_is_written_and_read_again():
    value = {"a": [1, 2.5, None, True], "b": {"c": "NaN"}}
    assert parse_json(format_json(value, Path("result.json"), indent=2).encode()) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_an_error_that_says_where(number):
    with pytest.raises(RunError, match=r"silos\.1\.epsilon=.*is not finite, and would stand in result\.json"):
        format_json({"silos": [{"epsilon": 1.0}, {"epsilon": number}]}, Path("run/result.json"))


def test_no_line_of_metrics_holds_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_line(path, line())
    before = path.read_bytes()
    with pytest.raises(RunError, match="entropy=nan"):
        append_line(path, line(entropy=math.nan))
    assert path.read_bytes() == before
