# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from support.silo_folder import make_folder
from typer.testing import CliRunner, Result

from fedcpsc.commands.owner_commands import mount

NOISY = {"kind": "noise_only", "sigma": 10.0, "epsilon": 8.0}


def fedcpsc(*words: object) -> Result:
    app = typer.Typer()
    mount(app)
    return CliRunner().invoke(app, [str(word) for word in words])


def told(*words: object) -> dict[str, Any]:
    done = fedcpsc(*words, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("sensitivity", "sigma", "answers", "epsilon"),
    [
        (1.0, 1.0, 1, 4.377178095681232),
        (1.4142135623730951, 1, 1000, 1189.7766984122504),
        (1.4142135623730951, 10, 10_000, 159.44148628736403),
    ],
)
def test_the_calculator_gives_the_exact_epsilon(sensitivity: float, sigma: float, answers: int, epsilon: float) -> None:
    found = told("epsilon", "--sensitivity", sensitivity, "--sigma", sigma, "--answers", answers, "--delta", 1e-5)
    assert found["epsilon"] == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize(("sigma", "answers"), [("12.5", 216), ("25", 867), ("50", 3469), ("125", 21684)])
def test_the_calculator_says_how_many_answers_an_epsilon_buys(sigma: str, answers: int) -> None:
    root_two = 2**0.5  # 250 teachers: sigma 0.1 on the mean is 25 on the votes
    found = told("epsilon", "--sensitivity", root_two, "--sigma", sigma, "--epsilon", 8)
    assert found["answers"] == answers
    assert found["epsilon"] <= 8


@pytest.mark.parametrize(
    "words",
    [
        ("--sensitivity", 1, "--sigma", 1),
        ("--sensitivity", 1, "--sigma", 1, "--answers", 1, "--epsilon", 1),
        ("--sensitivity", 1, "--sigma", 0, "--answers", 1),
        ("--sensitivity", 1, "--sigma", 1, "--answers", 0),
        ("--sensitivity", 1, "--sigma", 1, "--epsilon", -1),
        ("--sensitivity", 1, "--sigma", 1, "--answers", 1, "--delta", 1),
    ],
)
def test_the_calculator_refuses_what_makes_no_sense(words: tuple[object, ...]) -> None:
    done = fedcpsc("epsilon", *words)
    assert done.exit_code != 0
    assert "error:" in done.output


def test_the_policy_check_says_what_an_unprotected_silo_risks(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"answers": 500, "forms": ["label"], "share_class_counts": True})
    found = told("policy", "check", tmp_path)
    assert (found["dp"], found["epsilon"], found["answers"]) == (False, None, 500)
    words = fedcpsc("policy", "check", tmp_path).stdout
    for expected in (
        "at most 500 more answers",
        "epsilon is infinite",
        "labels alone",
        "exact class counts",
        "no high_water",
    ):
        assert expected in words


def test_the_policy_check_says_epsilon_at_exhaustion_and_how_many_answers_that_is(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"answers": 10**6, "mechanism": NOISY | {"epsilon": 28.4}})
    found = told("policy", "check", tmp_path)
    assert (found["dp"], found["delta"], found["unit"], found["relation"]) == (True, 1e-5, "record", "add_remove")
    assert found["answers"] == 1001  # 1,000 answers are epsilon 28.373
    assert found["epsilon"] == pytest.approx(28.4, rel=1e-6)
    assert "next to nothing" in " ".join(found["warnings"])


def test_the_policy_check_needs_no_ledger_and_leaves_none(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    assert told("policy", "check", tmp_path)["answers"] == 100
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_policy_that_cannot_be_honoured_fails_the_check(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"mechanism": {"kind": "dp_sgd", "epsilon": 4.0}})
    done = fedcpsc("policy", "check", tmp_path)
    assert done.exit_code == 1
    assert "the manifest has no proof" in done.output


def test_serving_a_folder_that_is_no_silo_is_an_error(tmp_path: Path) -> None:
    assert fedcpsc("gatekeeper", "serve", tmp_path / "none", "--socket", tmp_path / "s").exit_code == 1
    assert fedcpsc("gatekeeper", "serve", tmp_path, "--socket", tmp_path / "s").exit_code == 1
