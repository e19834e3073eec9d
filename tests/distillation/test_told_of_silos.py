# SPDX-License-Identifier: Apache-2.0
"""A silo that lies is named to people: in metrics, result, status, on terminal and page; an honest one is not."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config
from typer.testing import CliRunner

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.cli import app
from fedcpsc.commands.run_view import result_table
from fedcpsc.commands.status_words import in_words
from fedcpsc.distillation.belief import describe_beliefs, why_not_judged
from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.report.page import render
from fedcpsc.runs.health import read_health
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.runs.read import gather
from fedcpsc.runs.result import read_result
from fedcpsc.runs.suspicion import NO_TWO_AGREE, SuspicionWatch, exclusion

pytestmark = pytest.mark.slow  # whole runs

CLASSES = 10
LIAR = "silo-4"


def honest(images):
    return brightness_probabilities(images, CLASSES)


def shifted(images):
    """The honest answer for another class."""
    return np.roll(honest(images), 3, axis=1)


def certain(images):
    return np.eye(CLASSES, dtype=np.float32)[honest(images).argmax(1)]


def swapped(images):
    """The same with classes 2 and 7 swapped."""
    return certain(images)[:, [0, 1, 7, 3, 4, 5, 6, 2, 8, 9]]


def run(folder, teachers, *, simulated=True, **changes):
    small = {"silos__count": len(teachers), "queries__answers_per_silo": 800, "queries__rounds": 8}
    config = tiny_config(**{**small, "student__committee": 1, **changes})
    fakes = [FakeSilo(f"silo-{i}", classes=CLASSES, teacher=teacher) for i, teacher in enumerate(teachers)]
    facts = {fake.description.silo: SiloFacts(640, honest) for fake in fakes}
    images, told = evaluation(100, classes=CLASSES), []
    transport = LocalTransport(fakes)
    known = facts if simulated else None
    distill(config, transport, folder, evaluation=images, silo_facts=known, tell=told.append)
    return told


def made(tmp_path_factory, name, *teachers, **changes):
    folder = tmp_path_factory.mktemp(name) / "run"
    return folder, run(folder, teachers, **changes)


@pytest.fixture(scope="module")
def lied(tmp_path_factory):
    return made(tmp_path_factory, "lied", *[honest] * 4, shifted)


@pytest.fixture(scope="module")
def all_honest(tmp_path_factory):
    return made(tmp_path_factory, "honest", *[honest] * 5)


@pytest.fixture(scope="module")
def swaps(tmp_path_factory):
    return made(tmp_path_factory, "swaps", *[certain] * 4, swapped)


def section(page, anchor):
    begin = page.index(f'<h2 id="{anchor}"')
    return page[begin : page.index("</section>", begin)]


def shown(folder):
    return "\n".join(in_words(read_health(folder)))


def test_a_liar_among_five_is_told_once_with_the_remedy(lied):
    (line,) = [line for line in lied[1] if "suspected" in line]
    assert line.startswith(f"{LIAR} is suspected: the others do not see in images what it does;")
    assert f"aggregation.exclude: [{LIAR}]" in line


def test_metrics_have_every_silos_figures_by_round_from_the_round_that_can_judge(lied):
    rounds = [line for line in read_metrics(lied[0]) if line["phase"] == "round"]
    judged = [line for line in rounds if line["not_judged"] is None]
    assert 0 < len(judged) < len(rounds), "the first rounds have too few answers"
    assert all("reputation" not in silo for line in rounds if line["not_judged"] for silo in line["silos"].values())
    for line in judged:
        assert line["silos"][LIAR]["reputation"] < 0.5
        assert line["silos"][LIAR]["suspicion"]
        for name in line["silos"].keys() - {LIAR}:
            silo = line["silos"][name]
            assert silo["reputation"] > 0.9
            assert silo["agreement"] > line["silos"][LIAR]["agreement"]
            assert silo["suspicion"] is None


def test_the_result_names_it_and_no_other(lied):
    result = read_result(lied[0])
    assert [silo["id"] for silo in result["silos"] if silo["suspicion"]] == [LIAR]
    assert result["not_judged"] is None
    assert "turned_away" not in result


def test_status_raises_the_alarm_with_its_name(lied):
    health = read_health(lied[0])
    (alarm,) = [alarm for alarm in health.alarms if "suspected" in alarm]
    assert LIAR in alarm
    assert f"aggregation.exclude: [{LIAR}] and --resume" in alarm
    assert "silo-0: 800 of 800 answers; 9,200 left of its budget; reputation 1.00, agreement 0.6" in shown(lied[0])
    done = CliRunner().invoke(app, ["status", str(lied[0]), "--json"])
    assert [bool(silo["suspicion"]) for silo in json.loads(done.stdout)["silos"]] == [False] * 4 + [True]


def test_a_run_that_goes_on_is_told_of_too(lied, tmp_path):
    folder = shutil.copytree(lied[0], tmp_path / "run")
    (folder / "result.json").unlink()
    assert f"alarm: {LIAR} is suspected" in shown(folder)
    page = render(gather(folder))
    assert f"{LIAR} is suspected" in section(page, "in-short")
    assert "is written when a run ends" in section(page, "belief")


def test_the_table_of_the_terminal_names_it(lied):
    assert f"{LIAR} is suspected" in str(result_table(read_result(lied[0])).caption)


def test_the_page_begins_with_the_alarm_and_the_remedy(lied):
    page = render(gather(lied[0]))
    short = section(page, "in-short")
    assert f"<strong>Alarm:</strong> {LIAR} is suspected: the others do not see in images what it does." in short
    assert f"aggregation.exclude: [{LIAR}] and go on with --resume" in short
    believed = section(page, "belief")
    assert believed.index(f">{LIAR}</th>") < believed.index(">silo-0</th>")
    assert 'class="chart"' in believed


def test_honest_silos_are_not_accused(all_honest):
    folder, told = all_honest
    assert not any("suspected" in line for line in told)
    assert all(silo["suspicion"] is None and silo["reputation"] > 0.9 for silo in read_result(folder)["silos"])
    assert all(not silo.get("suspicion") for line in read_metrics(folder) for silo in line.get("silos", {}).values())
    assert "suspected" not in shown(folder)
    page = render(gather(folder))
    assert "is suspected" not in page
    assert "What to do" not in page


def test_a_silo_that_swaps_two_classes_is_contradicted_on_these(swaps):
    folder, _ = swaps
    facts = gather(folder)
    assert facts.suspicions == {LIAR: "contradicted on 2 of its classes"}
    assert facts.details.contradicted == {LIAR: (2, 7)} | {f"silo-{n}": () for n in range(4)}
    assert "class 2, class 7" in section(render(facts), "belief")


def test_a_deployments_page_names_neither_contradicted_classes_nor_weights_by_class(swaps, tmp_path):
    folder = shutil.copytree(swaps[0], tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"simulated": False}))
    page = render(gather(folder))
    believed = section(page, "belief")
    assert "class 2" not in believed
    assert "2 of its classes" in believed
    assert "under uniform with aggregation.robust" in section(page, "contributions")
    assert "Mean weight of each silo" in render(gather(swaps[0]))


def test_two_silos_cannot_outvote_each_other(tmp_path):
    told = run(tmp_path / "run", [honest, shifted])
    reason = "two silos cannot outvote each other"
    result = read_result(tmp_path / "run")
    assert result["not_judged"] == reason
    assert all("reputation" not in silo for silo in result["silos"])
    assert not any("suspected" in line for line in told)
    assert f"silos are not judged by their answers, because {reason}" in shown(tmp_path / "run")
    assert f"Not judged, because {reason}." in section(render(gather(tmp_path / "run")), "belief")
    assert reason in str(result_table(result).caption)


def test_without_robust_aggregation_nobody_is_judged(tmp_path):
    run(tmp_path / "run", [*[honest] * 4, shifted], aggregation__robust=False)
    assert read_result(tmp_path / "run")["not_judged"] == "aggregation.robust is false"
    assert "contradicted" not in json.loads((tmp_path / "run/details.json").read_text())
    assert "Not judged, because aggregation.robust is false." in render(gather(tmp_path / "run"))


def standing(**changes):
    """Four silos that agree, of two classes."""
    agreement = np.full((4, 4), 0.8, np.float32)
    np.fill_diagonal(agreement, 0)
    made = Standing(
        power=np.ones(4, np.float32),
        reputation=np.ones(4, np.float32),
        support=np.ones((4, 2), np.float32),
        steadiness=np.ones((2, 4), np.float32),
        agreement=agreement,
        surest=np.ones((4, 2), np.float32),
        known=np.ones((4, 2), bool),
        unchecked=np.zeros(4, bool),
        contradictions=np.zeros((4, 2), bool),
    )
    return replace(made, **changes)


def test_a_silo_counts_by_its_reputation_and_its_least_steady_window():
    steadiness = np.array([[1, 1, 1, 1], [1, 0.25, 1, 1]], np.float32)
    beliefs = describe_beliefs(standing(reputation=np.float32([1, 0.8, 0.5, 1]), steadiness=steadiness))
    assert [belief["reputation"] for belief in beliefs] == [1, 0.2, 0.5, 1]
    assert beliefs[1]["suspicion"] == "its answers turned in the course of the run"


def test_agreement_is_the_mean_over_those_that_share_a_class():
    known = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], bool)
    agreement = np.zeros((4, 4), np.float32)
    agreement[0, 1] = agreement[1, 0] = 0.6
    found = describe_beliefs(standing(known=known, agreement=agreement, unchecked=np.array([0, 0, 0, 1], bool)))
    assert [belief["agreement"] for belief in found] == [0.3, 0.3, 0, None]


def test_no_two_silos_that_agree_are_told_of(all_honest, tmp_path):
    disagreeing = standing(agreement=np.full((4, 4), 0.1, np.float32))
    config = tiny_config().aggregation
    assert why_not_judged(config, 4, disagreeing) == NO_TWO_AGREE
    assert why_not_judged(config, 4, standing()) is None
    apart = standing(agreement=np.zeros((4, 4), np.float32), unchecked=np.ones(4, bool))
    assert why_not_judged(config, 4, apart) is None, "silos that share no class cannot disagree"
    folder = shutil.copytree(all_honest[0], tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    result["silos"][0]["agreement"] = None
    (folder / "result.json").write_text(json.dumps(result | {"not_judged": NO_TWO_AGREE}))
    assert "alarm: no two silos agree" in shown(folder)
    page = render(gather(folder))
    assert "<strong>Alarm:</strong> No two silos agree" in section(page, "in-short")
    assert "No two silos agree, so that nobody can tell" in section(page, "belief")
    assert "cannot be checked" in section(page, "belief")


def test_a_silo_that_is_turned_away_is_named_in_result_status_and_report(tmp_path):
    fakes = [FakeSilo(f"silo-{n}") for n in range(4)]
    fakes[3].description = replace(fakes[3].description, image_shape=(3, 8, 8))
    config = tiny_config(silos__count=4, queries__quorum=0.5)
    facts = {fake.description.silo: SiloFacts(1, brightness_probabilities) for fake in fakes}
    distill(config, LocalTransport(fakes), tmp_path / "run", evaluation=evaluation(), silo_facts=facts)
    result = read_result(tmp_path / "run")
    assert list(result["turned_away"]) == ["silo-3"]
    reason = result["turned_away"]["silo-3"]
    assert "image_shape=(3, 8, 8): must be that of most silos" in reason
    assert f"not let in: silo-3: {reason}" in shown(tmp_path / "run")
    facts = gather(tmp_path / "run")
    assert "<strong>Not let in:</strong> silo-3 (image_shape=(3, 8, 8)" in section(render(facts), "budgets")
    deployed = replace(facts, result={**facts.result, "simulated": False})
    budgets = section(render(deployed), "budgets")
    assert "<strong>Not let in:</strong> silo-3;" in budgets
    assert "image_shape" not in budgets, "a reason may quote what the silo said to the server alone"
    while_it_goes_on = replace(facts, result=None)
    assert while_it_goes_on.turned_away == result["turned_away"]


def test_a_suspicion_is_told_when_it_arises_changes_its_kind_and_goes():
    watch = SuspicionWatch()
    assert watch.changes({}) == ([], [])
    assert watch.changes({"a": "x"}) == (["a is suspected: x; aggregation.exclude: [a] leaves it out"], [])
    assert watch.changes({"a": "x"}) == ([], [])
    assert watch.changes({"a": "on 1 class"})[0] == [
        "a is suspected: on 1 class; aggregation.exclude: [a] leaves it out"
    ]
    assert watch.changes({"a": "on 2 class"}) == ([], [])
    assert watch.changes({"b": "z"}) == (
        ["b is suspected: z; aggregation.exclude: [b] leaves it out"],
        ["a is no longer suspected"],
    )


@pytest.mark.parametrize(
    ("names", "excluded", "text"),
    [
        (["silo-3"], (), "aggregation.exclude: [silo-3]"),
        (["b", "a"], ("a",), "aggregation.exclude: [a, b]"),
        (["no", "a, b", "12"], (), 'aggregation.exclude: ["no", "a, b", "12"]'),
    ],
)
def test_the_remedy_is_yaml_that_can_be_copied(names, excluded, text):
    assert exclusion(names, excluded) == text
    assert tiny_config(aggregation__exclude=["x"]).aggregation.exclude == ("x",)
