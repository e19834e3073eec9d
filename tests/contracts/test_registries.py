# SPDX-License-Identifier: Apache-2.0
"""What every object that a configuration chooses by name must be, whatever it does."""

import importlib
import sys

import pytest
from support.documented import ROOT

from fedcpsc.aggregation.rule import RULES
from fedcpsc.choices import DEFAULT_MIXTURE
from fedcpsc.config import RunConfig
from fedcpsc.data.readers.source import SOURCES
from fedcpsc.errors import ConfigError
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.typed_yaml import validate
from website import fields
from website.reference import pages

KEYS = {"aggregation.rule": RULES, "synthesis.prior": PRIOR_KINDS, "data.source": SOURCES}
ALL = [(key, name) for key, registry in KEYS.items() for name in registry.choices.built_in()]


def chosen(key, name):
    """A configuration in which `name` is chosen."""
    section, field = key.split(".")
    return {section: {field: {name: 1.0} if key == "synthesis.prior" else name}}


@pytest.mark.parametrize(("key", "name"), ALL)
def test_a_configuration_may_name_it_and_it_calls_itself_so(key, name):
    validate(RunConfig, chosen(key, name), "test")
    assert KEYS[key].get(name).name == name


@pytest.mark.parametrize(("key", "name"), ALL)
def test_it_says_what_it_is_and_when_to_take_it_and_which_keys_it_reads(key, name):
    entry = KEYS[key].get(name)
    assert len(entry.summary.split()) >= 4
    assert entry.when.split()[0] in {"where", "for", "to"}, "a clause after `take it`"
    assert not (entry.summary + entry.when).endswith(".")
    known = {key.path for section in fields.sections(RunConfig) for key in section.keys}
    assert set(entry.parameters) <= known


@pytest.mark.parametrize(("key", "name"), ALL)
def test_the_reference_and_a_table_of_the_docs_tell_of_it(key, name):
    entry = KEYS[key].get(name)
    assert f"`{name}`: {entry.summary}; take it {entry.when}" in pages()["reference/run.md"]
    tables = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("recipe.md", "silos.md"))
    assert f"| `{name}` | {entry.summary} | {entry.when} |" in tables, "run python -m benchmarks.tables"


@pytest.mark.parametrize("key", KEYS)
def test_a_misspelt_name_is_an_error_that_names_the_nearest_and_all(key):
    right = KEYS[key].choices.built_in()[-1]
    with pytest.raises(ConfigError) as error:
        validate(RunConfig, chosen(key, right + "x"), "run.yaml")
    message = str(error.value)
    assert message.startswith(f"run.yaml: {key}")
    assert f"use {right!r}" in message
    assert all(name in message for name in KEYS[key].names())


def test_a_mixture_needs_a_positive_weight_when_it_is_read():
    with pytest.raises(ConfigError, match="needs a positive weight"):
        validate(RunConfig, {"synthesis": {"prior": {"smooth": 0.0}}}, "run.yaml")


def test_the_default_mixture_mixes_what_there_is_once_each():
    assert len(set(DEFAULT_MIXTURE)) == len(DEFAULT_MIXTURE)
    assert set(DEFAULT_MIXTURE) <= set(PRIOR_KINDS.choices.built_in())


TOYS = """
import numpy as np
import torch

from fedcpsc.aggregation.rule import LinearRule
from fedcpsc.data.readers.source import DataSource, Split
from fedcpsc.priors.prior import Prior

said = {"summary": "toy that a test registers", "when": "to see that one line is enough"}


class Loudest(LinearRule):
    def weight(self, answers, present):
        return present * answers.max(2, keepdims=True)


LOUDEST = Loudest(name="toy_rule", **said)
GREYS = Prior(
    name="toy_prior",
    draw=lambda count, shape, stream: (torch.rand(count, 1, 1, 1, generator=stream) * 2 - 1).expand(count, *shape),
    **said,
)


class Squares(DataSource):
    def has_split(self, folder, split):
        return split == "train"

    def read(self, config, folder, split):
        pictures = [np.full((8, 8), 40 * (i % 3), np.uint8) for i in range(30)]
        return Split(pictures, np.arange(30) % 3, ("a", "b", "c"), "squares")


SQUARES = Squares(name="toy_source", needs_folder=False, **said)
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Registers a toy of each: one file, and one line each. Forgotten after the test."""
    (tmp_path / "toys.py").write_text(TOYS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in KEYS.values():
        monkeypatch.setattr(registry.choices, "_built_in", dict(registry.choices._built_in))
    RULES.choices.register("toy_rule", "toys:LOUDEST")
    PRIOR_KINDS.choices.register("toy_prior", "toys:GREYS")
    SOURCES.choices.register("toy_source", "toys:SQUARES")
    yield importlib.import_module("toys")
    del sys.modules["toys"]


def test_one_file_and_one_line_add_a_rule_and_a_prior_that_a_run_then_uses(toys, tmp_path):
    from support.fakes import FakeSilo
    from support.tiny_runs import evaluation, tiny_config

    from fedcpsc.distillation.run import distill
    from fedcpsc.distillation.transport import LocalTransport

    config = tiny_config(aggregation__rule="toy_rule", synthesis__prior={"toy_prior": 1.0}, synthesis__prior_share=1.0)
    silos = [FakeSilo(f"silo-{i}") for i in range(2)]
    result = distill(config, LocalTransport(silos), tmp_path / "run", evaluation=evaluation())
    assert result["ensemble"]["rule"] == "toy_rule"
    asked = [image for query in silos[0].queries for image in query.images.reshape(len(query.images), -1)]
    assert all(len(set(image.tolist())) == 1 for image in asked), "every image asked about is one of the toy's greys"


def test_one_file_and_one_line_add_a_data_source_that_is_read(toys):
    from fedcpsc.data.sources import load_evaluation, load_train
    from fedcpsc.silo_config import DataConfig

    config = DataConfig(source="toy_source", test_share=0.2)
    train, held_out = load_train(config, 1), load_evaluation(config, 1)
    assert (len(train), len(held_out), train.classes) == (24, 6, 3)


def test_configuration_reference_and_tables_follow_from_the_line(toys):
    from benchmarks.tables import choices

    for key, name, table in (
        ("aggregation.rule", "toy_rule", choices.rules),
        ("synthesis.prior", "toy_prior", choices.prior_kinds),
        ("data.source", "toy_source", choices.data_sources),
    ):
        validate(RunConfig, chosen(key, name), "test")
        said = "toy that a test registers"
        assert f"`{name}`: {said}; take it to see that one line is enough" in pages()["reference/run.md"]
        assert any(line.startswith(f"| `{name}` | {said} |") for line in table())
    assert "toy_prior" not in RunConfig().synthesis.prior, "a new prior changes no run that does not name it"


def test_a_name_is_registered_once():
    with pytest.raises(ConfigError, match="is registered already"):
        RULES.choices.register("uniform", "somewhere:ELSE")
