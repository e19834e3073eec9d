# SPDX-License-Identifier: Apache-2.0
"""YAML as its writer reads it, and numbers that stay of the kind they were written in."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import ConfigError, PolicyError
from fedcpsc.gatekeeper.policy import load_policy
from fedcpsc.plain_yaml import NotPlain, dump_plain, load_plain, quoted
from fedcpsc.typed_yaml import parse_overrides, save_config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20_000", 20_000),
        ("-3", -3),
        ("0", 0),
        ("0x1F", 31),
        ("1e-4", 1e-4),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("0.3", 0.3),
        ("true", True),
        ("no", False),
        ("null", None),
        ("010", "010"),
        ("00.5", "00.5"),
        ("10:00", "10:00"),
        ("2026-11-28", "2026-11-28"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_a_value_is_what_it_looks_like(text, value):
    read = load_plain(text)
    assert (read, type(read)) == (value, type(value))


def test_a_key_that_stands_twice_is_named_with_both_its_lines():
    with pytest.raises(NotPlain, match=r"key 'answers' stands twice \(lines 1 and 3\); keep the one that is meant"):
        load_plain("answers: 500\nforms: [label]\nanswers: 20000\n")
    with pytest.raises(NotPlain, match=r"key 'a' stands twice \(line 2\)"):
        load_plain("outer:\n  {a: 1, b: 2, a: 3}\n")


def test_merge_keys_may_be_overridden_and_used_again():
    text = "base: &base {a: 1, b: 2}\none: {<<: *base, a: 3}\nmore: &more {<<: *base, b: 4}\nlast: {<<: *more, a: 5}\n"
    assert load_plain(text)["one"] == {"a": 3, "b": 2}
    assert load_plain(text)["last"] == {"a": 5, "b": 4}
    both = "one: &one {shared: 1, first: 1}\ntwo: &two {shared: 2, second: 2}\nboth: {<<: [*one, *two]}\n"
    assert load_plain(both)["both"] == {"shared": 1, "first": 1, "second": 2}
    assert load_plain("kept: &k {x: 1, <<: {x: 2, y: 3}}\nagain: *k\n")["again"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "text", ["[" * 2_000 + "]" * 2_000, "a: [1", "a: &a {<<: *a}", "<<: 3", "!!int x", "!!python/object:os.system x"]
)
def test_what_is_no_plain_yaml_is_an_explained_error(text):
    with pytest.raises(NotPlain, match="nested too deeply|is not YAML|must name mappings"):
        load_plain(text)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()))
def test_what_is_written_is_read_again(value):
    assert load_plain(dump_plain(value)) == value


@pytest.mark.parametrize("text", ["1e5", "010", "2026-11-28", "42", "10:00", "no", 'a "b" \\', "é: # x"])
def test_quoted_text_stays_text_for_any_reader_of_yaml(text):
    assert load_plain(quoted(text)) == load_plain(dump_plain({"a": text}))["a"] == text
    assert yaml.safe_load(dump_plain({"a": text}))["a"] == text


def test_a_policy_whose_later_lines_are_laxer_is_refused_rather_than_obeyed(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("answers: 500\nforms: [label]\n# pasted\nanswers: 20000\nforms: [probabilities]\n")
    with pytest.raises(PolicyError, match=r"policy\.yaml': key 'answers' stands twice \(lines 1 and 4\)"):
        load_policy(path)


def test_two_sections_of_one_name_are_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("silos: {count: 3}\nteachers: {epochs: 1}\nsilos: {root: elsewhere}\n")
    with pytest.raises(ConfigError, match=r"key 'silos' stands twice \(lines 1 and 3\)"):
        load_config(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("seed=010", "seed='010': must be a number, not text"),
        ("seed=true", "seed=True: must be a number, not true or false"),
        ("seed=3.0", "seed=3.0: must be a whole number"),
        ("queries.answers_per_silo=20.000", r"answers_per_silo=20\.0: must be a whole number"),
        ("queries.deadline_s=10:00", "queries.deadline_s='10:00': must be a number, not text"),
        ("queries.deadline_s=true", "queries.deadline_s=True: must be a number"),
        ("output.name=42", "output.name=42: must be text; put it in quotes"),
    ],
)
def test_a_value_of_another_kind_is_refused_rather_than_converted(tmp_path, given, said):
    path = tmp_path / "run.yaml"
    path.write_text("")
    with pytest.raises(ConfigError, match=said):
        load_config(path, [given])


@pytest.mark.parametrize("answers", ["20.000", "010000", "'20000'", "true", "5:33"])
def test_a_policy_says_how_many_in_plain_digits(tmp_path, answers):
    path = tmp_path / "policy.yaml"
    path.write_text(f"answers: {answers}\n")
    with pytest.raises(PolicyError, match="answers="):
        load_policy(path)


def test_a_whole_number_is_still_good_where_a_fraction_may_stand(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("queries: {deadline_s: 600}\nstudent: {learning_rate: 1e-3}\n")
    config = load_config(path)
    assert (config.queries.deadline_s, config.student.learning_rate) == (600.0, 1e-3)


@pytest.mark.parametrize("name", ["2026-11-28", "42", "1.10", "1e5", "no"])
def test_a_run_may_be_called_anything_and_its_file_loads_equal(tmp_path, name):
    assert parse_overrides([f"output.name={quoted(name)}"]) == {"output.name": name}
    config = RunConfig.model_validate({"output": {"name": name}})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
