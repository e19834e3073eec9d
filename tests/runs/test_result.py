# SPDX-License-Identifier: Apache-2.0
"""result.json carries the number of its layout: older files are read, newer ones refused."""

import json

import pytest
from support.run_results import result

from fedcpsc.errors import RunError
from fedcpsc.runs.result import RESULT_SCHEMA, read_result, read_white_box_result, upgrade_result

SCHEMA_0 = """{
  "name": "digits",
  "student": {"accuracy": 0.9},
  "ensemble": {"accuracy": null, "rule": "uniform"},
  "silos": [
    {"id": "silo-0", "teacher_accuracy": null, "train_size": null, "queries_answered": 400, "refusals": {}, "dp": false,
     "epsilon": null, "answers_left": 600, "left": null},
    {"id": "silo-1", "teacher_accuracy": null, "train_size": null, "queries_answered": 250, "refusals": {"budget": 1},
     "dp": true, "epsilon": 3.5, "answers_left": 0, "left": "its budget is spent"},
    {"id": "silo-2", "teacher_accuracy": null, "train_size": null, "queries_answered": 400, "refusals": {}, "dp": false,
     "epsilon": null}
  ],
  "queries_per_silo": 400,
  "bytes_sent": 2000000,
  "bytes_received": 53400,
  "seconds": {"total": 131.4, "distillation": 100.0, "waiting": 31.4},
  "seed": 1,
  "versions": {"torch": "2"},
  "commit": null
}
"""
SCHEMA_1 = SCHEMA_0.replace("{", '{\n  "schema": 1,', 1)
SCHEMA_2 = """{
  "schema": 2,
  "name": "digits",
  "student": {"accuracy": 0.9},
  "ensemble": {"accuracy": null, "rule": "uniform"},
  "silos": [
    {"id": "silo-0", "teacher_accuracy": null, "train_size": null, "answers": 400, "refusals": {}, "dp": false,
     "epsilon": null, "answers_left": 600, "stopped": null},
    {"id": "silo-1", "teacher_accuracy": null, "train_size": null, "answers": 250, "refusals": {"budget": 1},
     "dp": true, "epsilon": 3.5, "answers_left": 0, "stopped": "its budget is spent"},
    {"id": "silo-2", "teacher_accuracy": null, "train_size": null, "answers": 400, "refusals": {}, "dp": false,
     "epsilon": null}
  ],
  "answers_per_silo": 400,
  "bytes_sent": 2000000,
  "bytes_received": 53400,
  "seconds": {"total": 131.4, "distillation": 100.0, "waiting": 31.4},
  "seed": 1,
  "versions": {"torch": "2"},
  "commit": null
}
"""


def read(folder, **changed):
    (folder / "result.json").write_text(json.dumps(result() | changed))
    return read_result(folder)


@pytest.mark.parametrize("text", [SCHEMA_0, SCHEMA_1, SCHEMA_2], ids=["schema 0", "schema 1", "schema 2"])
def test_a_file_of_every_schema_is_given_in_the_form_of_this_version_and_left_as_it_is(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    assert read_result(tmp_path) == json.loads(SCHEMA_2)
    assert (tmp_path / "result.json").read_text() == text


def test_the_upgrade_changes_nothing_that_it_was_given():
    old = json.loads(SCHEMA_1)
    assert upgrade_result(old) == json.loads(SCHEMA_2)
    assert old == json.loads(SCHEMA_1)


@pytest.mark.parametrize("silos", [None, 3, [None], [["queries_answered"]]])
def test_damage_in_an_older_file_is_damage_after_the_upgrade(tmp_path, silos):
    (tmp_path / "result.json").write_text(json.dumps(json.loads(SCHEMA_0) | {"silos": silos}))
    with pytest.raises(RunError, match="lack something.*silos"):
        read_result(tmp_path)


def test_a_file_of_this_version_with_the_keys_of_an_earlier_one_lacks_something(tmp_path):
    (tmp_path / "result.json").write_text(SCHEMA_1.replace('"schema": 1', '"schema": 2'))
    with pytest.raises(RunError, match=r"lack something.*silos\.0\.answers"):
        read_result(tmp_path)


def test_a_file_of_this_version_is_read_with_what_only_others_know(tmp_path):
    found = read(tmp_path, schema=RESULT_SCHEMA, another="thing")
    assert found == result() | {"schema": RESULT_SCHEMA, "another": "thing"}


def test_a_file_of_a_newer_version_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(RunError, match=r"schema=3: .*newer version.*with the version of fedcpsc that wrote it"):
        read(tmp_path, schema=3)


@pytest.mark.parametrize("schema", ["1", True, None, -1, 1.0])
def test_a_schema_that_is_no_number_is_damage(tmp_path, schema):
    with pytest.raises(RunError, match="must be a number"):
        read(tmp_path, schema=schema)


def test_a_run_that_has_not_finished_has_none(tmp_path):
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"answers_per_silo": "many"}, "answers_per_silo"),
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
