# SPDX-License-Identifier: Apache-2.0
"""YAML as its writer reads it, and numbers that stay of the kind they were written in."""

import itertools
import math
import time
import tracemalloc

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
        ("20_000", "20_000"),
        ("100_", "100_"),
        ("1_0.5", "1_0.5"),
        ("+5", 5),
        ("-.inf", -math.inf),
        ("-3", -3),
        ("0", 0),
        ("0x1F", "0x1F"),
        ("0b11", "0b11"),
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
        ("!!str 5", "5"),
        ("=", "="),
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
    ("text", "said"),
    [
        ("answers: 5\n'answers': 7", "key 'answers' stands twice (lines 1 and 2)"),
        ('answers: 5\n"answ\\x65rs": 7', "key 'answers' stands twice (lines 1 and 2)"),
        ("answers: 5\n? answers\n: 7", "key 'answers' stands twice (lines 1 and 2)"),
        ("&a answers: 5\n*a : 7", "key 'answers' stands twice (lines 1 and 2)"),
        ("1: 2\n+1: 3", "key '+1' stands twice (lines 1 and 2)"),
        ("<<: {a: 1}\nb: 2\n<<: {a: 3}", "key '<<' stands twice (lines 1 and 3); name both in one list"),
        ("<<: {a: 1, a: 2}", "key 'a' stands twice (line 1)"),
        ("yes: 5", "the key in line 1 is read as True, not as text; put it in quotes"),
        ("1.5: 5", "the key in line 1 is read as 1.5"),
        ("[a]: 5", "the key in line 1 is a list or a mapping"),
    ],
)
def test_a_key_is_text_and_stands_once_however_it_is_written(text, said):
    with pytest.raises(NotPlain) as refused:
        load_plain(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is not YAML (line 1, column 6: while parsing a flow sequence"),
        ("a: &a {<<: *a}", "*a in line 1 stands within what it names"),
        ("a: &a [*a]", "*a in line 1 stands within what it names"),
        ("<<: 3", "<< in line 1 must name mappings"),
        ("!!int x", "'x' in line 1 is no int"),
        ("a: !!int 010", "'010' in line 1 is no int"),
        ("a: !!int {=: 5}", "the value in line 1 is no single int"),
        ("a: !!bool foo", "'foo' in line 1 is no bool"),
        ("a: !!null 500", "'500' in line 1 is no null"),
        ("a: !!binary MTA=", "has the tag !!binary in line 1"),
        ("a: !!timestamp 2026-11-28", "has the tag !!timestamp in line 1"),
        ("a: !!set {b: 1}", "has the tag !!set in line 1"),
        ("!!python/object:os.system x", "has the tag !!python/object:os.system in line 1"),
        ("a: " + "9" * 5_000, "is no int"),
        ("b: 1\na:\n", "key 'a' has no value (line 2); write it, or null where none is meant"),
        ("a: 1\n---\na: 2", "holds a second document (line 2"),
        ("a:\n\tb: 1", "has a tab where only spaces may stand (line 2, column 1); replace it by spaces"),
        ("a: 1\nb: \0", "has the character U+0000 in line 2"),
        ("a: \udcff", "has the character U+DCFF in line 1"),
    ],
)
def test_what_is_no_plain_yaml_is_explained_with_its_line(text, said):
    with pytest.raises(NotPlain) as refused:
        load_plain(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


_NINES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghijklm")
)
_MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}], {name}: 1}}\n"
    for before, name in itertools.pairwise("abcdefghijklm")
)
_CHAIN = "a0: &a0 [x]\n" + "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 200))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_NINES, "holds more than 100,000 values by line 6, aliases written out"),
        (_MERGES, "holds more than 100,000 values by line"),
        (_CHAIN, "nested more than 50 levels deep (*a48 in line 50)"),
        ("[" * 2_000 + "]" * 2_000, "nested more than 50 levels deep (line 1)"),
        ("[" * 100_000, "nested more than 50 levels deep (line 1)"),
        ("{a: " * 100_000, "nested more than 50 levels deep (line 1)"),
        ("- " * 100_000, "nested more than 50 levels deep (line 1)"),
    ],
    ids=["aliases", "merges", "chain of aliases", "brackets", "open brackets", "braces", "dashes"],
)
def test_a_small_text_that_means_an_endless_document_is_refused_at_once(text, said):
    begun = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(NotPlain) as refused:
            load_plain(text)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert said in str(refused.value)
    assert time.process_time() - begun < 5


def test_fifty_levels_and_ordinary_aliases_are_no_fault():
    assert load_plain("[" * 50 + "x" + "]" * 50)
    assert load_plain("one: &one {a: [1, 2]}\ntwo: *one\nthree: [*one, *one]")["three"][1] == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"answers: 5\nforms: [\xe9]", "is not UTF-8 (byte 0xE9 in line 2); save it as UTF-8"),
        ("answers: 5".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"answers: 5\n\xef\xbb\xbfanswers: 6", "has a byte-order mark (U+FEFF) in line 2"),
        (b"answers: 5\0", "has the character U+0000 in line 1"),
        (b"# " + b"x" * 2**21, "has more than 2,097,152 bytes"),
        ("\u0430nswers: 5".encode(), r"'\u0430nswers': unknown key; the nearest valid one is 'answers'"),
        ("answers\u200b: 5".encode(), r"'answers\u200b': unknown key; the nearest valid one is 'answers'"),
        (b"answers:5", "must be a mapping: lines of the form KEY: VALUE"),
    ],
)
def test_bytes_that_are_no_policy_are_explained(tmp_path, data, said):
    path = tmp_path / "policy.yaml"
    path.write_bytes(data)
    with pytest.raises(PolicyError) as refused:
        load_policy(path)
    assert said in str(refused.value)


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"\xef\xbb\xbfanswers: 5\r\n")
    assert load_policy(path).answers == 5


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
        ("seed=010", "seed='010': must be a number in decimal digits"),
        ("seed=true", "seed=True: must be a number, not true or false"),
        ("seed=3.0", "seed=3.0: must be a whole number"),
        ("queries.answers_per_silo=20.000", r"answers_per_silo=20\.0: must be a whole number"),
        ("queries.deadline_s=10:00", "queries.deadline_s='10:00': must be a number in decimal digits"),
        ("queries.deadline_s=true", "queries.deadline_s=True: must be a number"),
        ("seed=0x10", "seed='0x10': must be a number in decimal digits"),
        ("seed=1_000", "seed='1_000': must be a number in decimal digits"),
        ("synthesis.prior={noise: true}", "prior.*: must be a number, not true or false"),
        ("synthesis.prior={noise: '3'}", "prior.*: must be a number"),
        ("data.channels=true", "data.channels=True: must be a number, not true or false"),
        ("queries.recipes=1", "queries.recipes=1: must be true or false"),
        ("output={name: a, name: b}", r"its value cannot be taken: key 'name' stands twice \(line 1\)"),
        ("output.name=", "--set='output.name=': has no value; write one, null for none"),
        ("output..name=x", "must be key=value"),
        (".".join("a" * 60) + "=1", "must be key=value"),
        ("output.name=42", "output.name=42: must be text; put it in quotes"),
    ],
)
def test_a_value_of_another_kind_is_refused_rather_than_converted(tmp_path, given, said):
    path = tmp_path / "run.yaml"
    path.write_text("")
    with pytest.raises(ConfigError, match=said):
        load_config(path, [given])


_NO_WHOLE_NUMBERS = (
    "20.000|010000|'20000'|true|5:33|1_000|0x10|0b11|0o17|1e3|yes|no|on|off|2026-11-28|1,000|+-5|.5|.inf|４２|!!int 010"
)


@pytest.mark.parametrize("answers", _NO_WHOLE_NUMBERS.split("|"))
def test_a_policy_says_how_many_in_plain_digits(tmp_path, answers):
    path = tmp_path / "policy.yaml"
    path.write_text(f"answers: {answers}\n")
    with pytest.raises(PolicyError, match=r"answers=.*: must be a .*number|'010' in line 1 is no int"):
        load_policy(path)


@pytest.mark.parametrize("epsilon", ["010.5", "10:00", "1_0.5", "0x10", "true", "on", "'3'", "2026-11-28", "1e"])
def test_a_policy_says_how_much_in_decimal_digits(tmp_path, epsilon):
    path = tmp_path / "policy.yaml"
    path.write_text(f"mechanism: {{kind: dp_sgd, epsilon: {epsilon}, delta: 1e-5}}\n")
    with pytest.raises(PolicyError, match=r"epsilon=.*must be a number"):
        load_policy(path)
    path.write_text("mechanism: {kind: dp_sgd, epsilon: 1,5}\n")
    with pytest.raises(PolicyError, match="key '5' has no value"):
        load_policy(path)


@pytest.mark.parametrize("given", ["1", "0", "y", "'no'", "'true'", "1.0", "tRue", "[true]"])
def test_a_switch_is_true_or_false_and_nothing_that_might_be_meant_so(tmp_path, given):
    path = tmp_path / "policy.yaml"
    path.write_text(f"share_class_counts: {given}\n")
    with pytest.raises(PolicyError, match=r"share_class_counts=.*(must be true or false|valid boolean)"):
        load_policy(path)


@pytest.mark.parametrize(("given", "meant"), [("yes", True), ("off", False), ("True", True), ("false", False)])
def test_a_switch_may_be_written_in_the_words_of_yaml(tmp_path, given, meant):
    path = tmp_path / "policy.yaml"
    path.write_text(f"share_class_counts: {given}\n")
    assert load_policy(path).share_class_counts is meant


def test_noise_whose_size_was_left_blank_is_not_taken_for_none(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("share_class_counts: true\nclass_count_sigma:\nanswers: 5\n")
    with pytest.raises(PolicyError, match=r"key 'class_count_sigma' has no value \(line 2\)"):
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
