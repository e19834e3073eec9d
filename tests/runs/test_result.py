"""result.json carries the number of its layout: older files are read, newer ones refused."""

import json

import pytest
from support.run_results import result

from fedcpsc.errors import RunError
from fedcpsc.runs.result import RESULT_SCHEMA, read_result, read_white_box_result


def read(folder, **changed):
    (folder / "result.json").write_text(json.dumps(result() | changed))
    return read_result(folder)


def test_a_file_without_a_schema_is_of_an_earlier_version_and_is_read(tmp_path):
    assert read(tmp_path) == result()
    assert "schema" not in result()


def test_a_file_of_this_version_is_read_with_what_only_others_know(tmp_path):
    found = read(tmp_path, schema=RESULT_SCHEMA, another="thing")
    assert found == result() | {"schema": RESULT_SCHEMA, "another": "thing"}


def test_a_file_of_a_newer_version_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(RunError, match=r"schema=2: .*newer version.*with the version of fedcpsc that wrote it"):
        read(tmp_path, schema=2)


@pytest.mark.parametrize("schema", ["1", True, None, -1, 1.0])
def test_a_schema_that_is_no_number_is_damage(tmp_path, schema):
    with pytest.raises(RunError, match="must be a number"):
        read(tmp_path, schema=schema)


def test_a_run_that_has_not_finished_has_none(tmp_path):
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"queries_per_silo": "many"}, "queries_per_silo"),
        ({"student": {}}, r"student\.accuracy"),
        ({"silos": [{}]}, r"silos\.0\.id"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named(tmp_path, changed, words):
    with pytest.raises(RunError, match=f"lack something.*{words}"):
        read(tmp_path, **changed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"seed": NaN}', "NaN is no number"),
        (b'{"seed": -Infinity}', "-Infinity is no number"),
        (b'{"seed": 1e999}', "too large a number"),
        (b'{"name": "\xff"}', "utf-8"),
        (b"[]", "list, not a mapping"),
        (b"", "damaged"),
    ],
)
def test_what_is_no_json_is_damaged(tmp_path, text, words):
    (tmp_path / "result.json").write_bytes(text)
    with pytest.raises(RunError, match=f"damaged.*{words}|{words}.*damaged|is {words}"):
        read_result(tmp_path)


def test_a_run_is_not_taken_for_one_of_the_white_box_mode(tmp_path):
    read(tmp_path)
    with pytest.raises(RunError, match="lack something"):
        read_white_box_result(tmp_path)
