# SPDX-License-Identifier: Apache-2.0
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from fedcpsc.app_config import AppConfig
from fedcpsc.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_its_keys_and_defaults_are_those_that_flower_knows():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert asdict(AppConfig()) == known


@pytest.mark.parametrize("text", ["", "a.b=1;c=2", 'say "hi"', "back\\slash", "new\nline", "Zürich 🌷"])
def test_toml_and_back_is_the_same(text):
    given = AppConfig(overrides=text, resume=True)
    assert AppConfig.of(tomllib.loads(given.to_toml())) == given


def test_foreign_keys_are_left_out_and_missing_ones_are_defaults():
    assert AppConfig.of({"resume": True, "num-server-rounds": 3}) == AppConfig(resume=True)


@pytest.mark.parametrize(("name", "value"), [("config", 3), ("resume", "yes"), ("silos", 1.5)])
def test_values_of_another_type_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        AppConfig.of({name: value})


def test_overrides_reach_the_configuration(tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 4\n")
    joined = AppConfig.join_overrides(["silos.count=7", "synthesis.prior={smooth: 1}"])
    config = AppConfig("run.yaml", joined).load(tmp_path)
    assert (config.seed, config.silos.count, config.synthesis.prior) == (4, 7, {"smooth": 1.0})


def test_an_override_that_holds_the_separator_is_refused():
    with pytest.raises(ConfigError, match="--set"):
        AppConfig.join_overrides(["data.path=a;b"])


def test_a_folder_of_silos_that_is_given_needs_no_configuration():
    assert AppConfig("missing.yaml", silos="/srv/silos").silos_folder(ROOT) == Path("/srv/silos")
