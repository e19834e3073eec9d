# SPDX-License-Identifier: Apache-2.0
"""A commented configuration means what was chosen, and so does the same file with any of its lines uncommented."""

import re

import pytest
import yaml
from pydantic import Field

from fedcpsc.commented_yaml import commented
from fedcpsc.config import RunConfig
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.plain_yaml import NotPlain, load_plain
from fedcpsc.typed_yaml import Strict, validate

CHOSEN = {
    "seed": 7,
    "data": {"source": "folder", "path": "/data/a b: c"},
    "silos": {"count": 2, "partition": {"alpha": 0.5}, "policy": {"answers": 100}},
    "synthesis": {"moments": [-0.4, 0.75]},
}
SECTIONS = {"silos.policy": Policy}
SETTING = re.compile(r"^ *#(?=\S)")


def text_of_all() -> str:
    return commented(RunConfig, CHOSEN, {"silos.count": "two of us"}, SECTIONS)


def read(text: str) -> RunConfig:
    found = validate(RunConfig, load_plain(text), "text")
    policy = validate(Policy, found.silos.policy, "policy").model_dump()  # its defaults are no other policy
    return found.model_copy(update={"silos": found.silos.model_copy(update={"policy": policy})})


@pytest.fixture(scope="module")
def wanted() -> RunConfig:
    found = validate(RunConfig, CHOSEN, "chosen")
    policy = Policy(answers=100).model_dump()
    return found.model_copy(update={"silos": found.silos.model_copy(update={"policy": policy})})


def test_the_file_means_what_was_chosen(wanted):
    assert read(text_of_all()) == wanted
    assert "  count: 2  # two of us\n" in text_of_all()


def test_with_every_setting_uncommented_it_means_the_same(wanted):
    lines = [SETTING.sub(lambda found: found[0][:-1], line) for line in text_of_all().splitlines()]
    assert not any(SETTING.match(line) for line in lines)
    assert read("\n".join(lines)) == wanted


def test_one_setting_uncommented_alone_stands_in_its_own_section_or_is_refused(wanted):
    lines = text_of_all().splitlines()
    alone = [number for number, line in enumerate(lines) if SETTING.match(line) and not line.startswith(" " * 6)]
    assert len(alone) > 90
    for number in alone:
        changed = [*lines[:number], SETTING.sub(lambda found: found[0][:-1], lines[number]), *lines[number + 1 :]]
        if lines[number].endswith(":"):
            with pytest.raises(NotPlain, match="has no value"):
                read("\n".join(changed))
        else:
            assert read("\n".join(changed)) == wanted, lines[number]


def test_every_key_of_a_run_and_of_a_policy_is_there_with_words_of_its_own():
    lines = text_of_all().splitlines()
    keys = {match[1] for line in lines if (match := re.match(r" *#?(\w+):", line))}
    models = [RunConfig, Policy, *(field.annotation for field in RunConfig.model_fields.values())]
    for model in models:
        if isinstance(model, type) and issubclass(model, Strict):
            assert set(model.model_fields) <= keys
    for number, line in enumerate(lines):
        if re.match(r" *#?\w+:", line):
            assert re.match(r" *# \S", lines[number - 1]), f"nothing is said of {line}"


def test_the_words_are_the_classes_own_and_cannot_go_stale():
    class Inner(Strict):
        """What is inside."""

        size: int = Field(3, description="number of things, >= 1")

    class Outer(Strict):
        inner: Inner = Inner()

    assert commented(Outer, {}) == "\n# What is inside.\ninner:\n  # number of things, >= 1\n  size: 3\n"
    assert commented(Outer, {"inner": {"size": 4}}).endswith("  size: 4\n")


def test_lines_fit_a_screen_but_for_a_value():
    assert all(len(line) <= 100 for line in text_of_all().splitlines() if re.match(r" *# ", line))


def test_other_readers_of_yaml_read_the_same(wanted):
    assert validate(RunConfig, yaml.safe_load(text_of_all()), "text").data == wanted.data
