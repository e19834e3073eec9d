# SPDX-License-Identifier: Apache-2.0
"""A user's own package brings rules and priors: found when named, imported when used, and never by a message."""

import re
import subprocess
import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from support.documented import ROOT, blocks
from support.fakes import FakeSilo
from support.own_packages import install
from support.tiny_recipes import a_recipe
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.aggregation.rule import RULES
from fedcpsc.choices import AGGREGATION_RULES, DATA_SOURCES, PRIORS
from fedcpsc.config import RunConfig
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.recipes.drawing import draw_images
from fedcpsc.typed_yaml import validate

PAGE = ROOT / "docs" / "extending.md"
RULES_GROUP, PRIORS_GROUP = "fedcpsc.aggregation_rules", "fedcpsc.priors"
A_PRIOR = """
import torch
from fedcpsc.priors.prior import Prior
THING = Prior(name="mine", summary="s", when="w", draw=lambda n, shape, g: torch.{drawn})
"""


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The package of the documentation, installed."""
    text = {block.title: block.text for block in blocks(PAGE, "python", "toml")}
    project = tomllib.loads(text["pyproject.toml"])["project"]
    install(monkeypatch, tmp_path / "site", "my_rules", text["my_rules.py"], project["entry-points"])
    (settings,) = blocks(PAGE, "yml")
    return yaml.safe_load(settings.text)


def test_the_documented_package_works_as_documented(documented, tmp_path):
    validate(RunConfig, documented, "the page")
    assert "my_rules" not in sys.modules, "a configuration is checked without importing what it names"
    prior = documented["synthesis"]["prior"]
    config = tiny_config(aggregation__rule=documented["aggregation"]["rule"], synthesis__prior=prior)
    silos = [FakeSilo(f"silo-{i}") for i in range(3)]
    result = distill(config, LocalTransport(silos), tmp_path / "run", evaluation=evaluation())
    assert result["ensemble"]["rule"] == "my_median"
    assert "my_rules" in sys.modules
    assert (RULES.names()[-1], PRIOR_KINDS.names()[-1]) == ("my_median", "my_rings")


def test_the_documented_rule_is_a_median_of_those_that_answered(documented):
    answers = np.array([[[0.8, 0.2]], [[0.6, 0.4]], [[0.1, 0.9]], [[0.0, 0.0]]], np.float32)
    given = np.array([[True], [True], [True], [False]])
    assert aggregate(answers, given, RULES.get("my_median"))[0] == pytest.approx([0.6, 0.4])


def test_the_built_in_names_stay_as_they_are(documented):
    assert AGGREGATION_RULES.built_in() == AGGREGATION_RULES.names()[:-1]
    assert "my_median" not in DATA_SOURCES.names()


@pytest.mark.parametrize("name", ["smooth", "mine"])
def test_a_name_that_two_bring_is_refused(name, tmp_path, monkeypatch):
    text = A_PRIOR.format(drawn="zeros(n, *shape)")
    install(monkeypatch, tmp_path / "a", "first_package", text, {PRIORS_GROUP: {name: "first_package:THING"}})
    if name == "mine":
        install(monkeypatch, tmp_path / "b", "second_package", text, {PRIORS_GROUP: {name: "second_package:THING"}})
    with pytest.raises(ConfigError, match=rf"prior='{name}': is the name of several \(.*first_package:THING"):
        PRIOR_KINDS.get(name)
    assert PRIOR_KINDS.get("strokes").name == "strokes", "other names are as before"


@pytest.mark.parametrize(
    ("address", "text", "message"),
    [
        ("broken:THING", "import no_such_module", "cannot be imported .*no_such_module"),
        ("broken:THING", "", "cannot be imported .*THING"),
        ("broken:THING", "THING = 3", "is of class int, must be of Prior"),
        ("broken:THING", A_PRIOR.format(drawn="zeros(n, *shape)").replace("mine", "other"), "calls itself 'other'"),
    ],
)
def test_an_object_that_is_none_is_named_with_its_package(address, text, message, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path / "site", "broken", text, {PRIORS_GROUP: {"mine": address}})
    with pytest.raises(ConfigError, match=f"prior='mine': {message}.*fix the package that brings broken:THING"):
        PRIOR_KINDS.get("mine")


@pytest.mark.parametrize("drawn", ["zeros(n, 1, 1, 1)", "zeros(n, *shape).double()", "full((n, *shape), 2.0)"])
def test_images_that_are_none_are_refused(drawn, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path / "s", "wild", A_PRIOR.format(drawn=drawn), {PRIORS_GROUP: {"mine": "wild:THING"}})
    with pytest.raises(ConfigError, match=r"prior='mine': must draw float32 \[2, 1, 4, 4\] in \[-1, 1\]"):
        PRIOR_KINDS.get("mine").images(2, (1, 4, 4), torch.Generator())


@pytest.mark.parametrize("pooled", ["answers", "-answers.sum(0)", "answers.sum(0) * float('nan')"])
def test_targets_that_are_none_are_refused(pooled, tmp_path, monkeypatch):
    text = f"""
from fedcpsc.aggregation.rule import AggregationRule
class Wild(AggregationRule):
    def pool(self, answers, present, counts, smoothing):
        return {pooled}
WILD = Wild(name="wild", summary="s", when="w")
"""
    install(monkeypatch, tmp_path / "site", "wild", text, {RULES_GROUP: {"wild": "wild:WILD"}})
    answers = np.full((2, 3, 4), 0.25, np.float32)
    with pytest.raises(ConfigError, match=r"aggregation rule='wild': must give finite numbers >= 0 of shape \(3, 4\)"):
        aggregate(answers, np.ones((2, 3), bool), RULES.get("wild"))


def test_recipes_with_a_prior_of_ones_own_are_refused_when_the_configuration_is_read(documented):
    with pytest.raises(ConfigError, match=r"queries.recipes=True: silos would have to draw the priors my_rings"):
        validate(RunConfig, {**documented, "queries": {"recipes": True}}, "run.yaml")


def test_a_message_makes_a_silo_import_no_prior_that_happens_to_be_installed_there(documented):
    recipe = a_recipe()
    recipe = replace(recipe, pools=tuple(replace(pool, mixture=(("my_rings", 1.0),)) for pool in recipe.pools))
    with pytest.raises(ConfigError, match="prior='my_rings': must be one of"):
        draw_images(recipe)
    assert "my_rules" not in sys.modules


@pytest.mark.parametrize("name", ["os:system", "my_rules:MEDIAN", "fedcpsc.aggregation.uniform:UNIFORM"])
def test_an_address_is_no_name(name, documented):
    with pytest.raises(ConfigError, match="must be one of"):
        validate(RunConfig, {"aggregation": {"rule": name}}, "run.yaml")


def test_configurations_are_read_and_misspellings_explained_without_torch_and_numpy():
    code = (
        "import sys; from fedcpsc.config import load_config; load_config('configs/digits.yaml')\n"
        "try: load_config('configs/digits.yaml', ['synthesis.prior={smoth: 1}', 'aggregation.rule=unifrom'])\n"
        "except Exception as error: print(error)\n"
        "print(sorted({'torch', 'numpy', 'fedcpsc.priors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
    assert "use 'smooth'" in done.stdout
    assert "use 'uniform'" in done.stdout


def test_the_page_names_the_groups_that_are_read():
    named = set(re.findall(r"`(fedcpsc\.\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {AGGREGATION_RULES.group, PRIORS.group} == {RULES_GROUP, PRIORS_GROUP}
