# SPDX-License-Identifier: Apache-2.0
"""A plan comes to the runs that it says, and whatever is wrong with it is found before anything runs."""

import pytest
from support.documented import ROOT
from support.tiny_runs import SMOKE

from fedcpsc.config import load_config
from fedcpsc.errors import ConfigError
from fedcpsc.sweep.expand import AS_CONFIGURED, expand
from fedcpsc.sweep.layout import run_name
from fedcpsc.sweep.plan import load_plan


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("sweep_*.yaml")), ids=lambda path: path.stem)
def test_the_plans_in_configs_are_valid(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = load_plan(path)
    assert expand(plan, tmp_path).runs


def test_a_plan_without_a_name_has_that_of_its_file(tmp_path):
    path = tmp_path / "2026-11-28.yaml"
    path.write_text("config: a.yaml\n")
    assert load_plan(path).name == "2026-11-28"


def test_each_setting_runs_with_each_seed_and_has_the_configuration_that_set_gives_by_hand(planned):
    sweep = planned(set=["student.width=4"], overrides=["queries.rounds=2"])
    assert [run.name for run in sweep.runs] == [
        f"{setting}-seed{seed}" for seed in (1, 2, 3) for setting in ("uniform", "entropy")
    ]
    run = sweep.runs[3]
    by_hand = ["student.width=4", "queries.rounds=2", *run.setting.overrides, "seed=2", f"output.name={run.name}"]
    by_hand += [f"output.root={run.folder.parent}", f"silos.root={run.silos}"]
    assert run.config == load_config(SMOKE, by_hand)
    assert sweep.varied == ("aggregation.rule",)
    assert run.setting.values == {"aggregation.rule": "entropy"}


def test_a_grid_is_every_combination_with_every_setting_and_every_varied_key_has_a_value(planned):
    sweep = planned(
        settings={"plain": {}, "labels": {"silos.policy.forms": ["label"]}},
        grid={"student.width": [4, 8], "synthesis.prior": [{"smooth": 1}]},
        seeds=[1],
    )
    assert [setting.name for setting in sweep.settings] == [
        'plain, width=4, prior={"smooth": 1}',
        'plain, width=8, prior={"smooth": 1}',
        'labels, width=4, prior={"smooth": 1}',
        'labels, width=8, prior={"smooth": 1}',
    ]
    assert sweep.settings[1].values == {
        "silos.policy.forms": None,
        "student.width": 8,
        "synthesis.prior": {"smooth": 1.0},
    }
    assert len({run.name.casefold() for run in sweep.runs}) == 4


def test_settings_and_grid_may_be_left_out(planned):
    assert [run.name for run in planned(settings={}).runs] == [run_name(AS_CONFIGURED, seed) for seed in (1, 2, 3)]


def test_names_of_runs_do_not_depend_on_other_settings_and_differ_where_names_do():
    assert run_name("uniform", 1) == "uniform-seed1"
    names = ["digits 8x8, none", "digits 8x8; none", "../digits", "größe", "=", "x" * 100, "x" * 99]
    found = {run_name(name, 7) for name in names}
    assert len(found) == len(names)
    assert all(len(name) <= 81 and "/" not in name and name[0].isalnum() for name in found)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"settings": {"a": {"aggregation.rul": "uniform"}}}, r"setting 'a': .*aggregation.rul: unknown key.*rule"),
        ({"settings": {"a": {"aggregation.rule": "mean"}}}, "setting 'a': .*aggregation.rule"),
        ({"settings": {"a": {"aggregation": {"rule": "uniform"}}}}, "settings.a.aggregation.*with a dot between"),
        ({"settings": {"a": {"seed": 3}}}, "seed.*the plan's seeds"),
        ({"settings": {"a": {"output.name": "x"}}}, "output.name.*each run gets its own"),
        ({"set": ["silos.root=x"]}, "silos.root.*each run gets its own"),
        ({"set": ["student.widht=3"]}, "the plan's configuration: .*widht"),
        ({"settings": {"a": {}, "A": {"student.width": 4}}}, "differs from 'a' by capitals alone"),
        ({"settings": {" a": {}}}, "without space at the ends"),
        ({"settings": {"a": {}, "b": {"aggregation.rule": "uniform"}}}, "'b': comes to the same.*'a'"),
        ({"seeds": [1, 2, 1]}, "at least one, each once"),
        ({"seeds": []}, "at least one, each once"),
        ({"grid": {"student.width": [4, 4]}}, "grid.student.width=.*each once"),
        ({"grid": {"aggregation.rule": ["uniform"]}}, "setting 'uniform' sets aggregation.rule as well"),
        ({"grid": {"aggregation.rule.x": ["uniform"]}}, "setting 'uniform' sets aggregation.rule as well"),
        ({"grid": {"student.width": list(range(1, 90))}}, "178 settings x 3 seeds are more than 100; .*--max-runs 534"),
        ({"settings": {}, "grid": {f"student.x{i}": [0, 1] for i in range(60)}}, "settings x 3 seeds are more than"),
        ({"overrides": ["aggregation.rule=uniform"]}, "--set='aggregation.rule': the plan varies aggregation.rule"),
        (
            {"answers": "shared", "settings": {"a": {"queries.rounds": 2}}},
            "setting 'a' cannot share answers: .*queries.rounds: 4 -> 2",
        ),
        ({"set": ["queries.start_from=runs/digits"]}, "queries.start_from.*other silos than a sweep's runs have"),
        ({"nmae": "x"}, "nmae: unknown key; the nearest valid one is 'name'"),
    ],
)
def test_what_is_wrong_with_a_plan_is_named_before_anything_runs(planned, keys, words):
    with pytest.raises(ConfigError, match=words):
        planned(**keys)


def test_more_runs_are_allowed_by_number(planned):
    assert len(planned(grid={"student.width": list(range(1, 90))}, most_runs=534).runs) == 534


def test_shared_answers_are_asked_for_once_a_seed_by_the_configuration_as_it_is(planned):
    sweep = planned(answers="shared")
    assert [(bank.setting.name, bank.seed) for bank in sweep.banks] == [(AS_CONFIGURED, seed) for seed in (1, 2, 3)]
    assert len(sweep.runs) == 6
    assert {sweep.bank_of(run).seed for run in sweep.runs if run.seed == 2} == {2}
    assert sweep.bank_of(sweep.banks[0]) is None
    assert [run.seed for run in sweep.everything] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert planned().bank_of(planned().runs[0]) is None
