# SPDX-License-Identifier: Apache-2.0
"""The lies of `benchmarks/dishonest` are what they say, and its measurement goes on where it was stopped."""

import json

import numpy as np
import pytest

from benchmarks.dishonest import __main__ as bench
from benchmarks.dishonest.attacks import ATTACKS, FORMS, View, bright_corner, keep_and_lie, told
from benchmarks.dishonest.compare import Bench
from benchmarks.dishonest.measure import PEAK, PLAIN_PEAK
from benchmarks.dishonest.rows import Rows
from benchmarks.dishonest.worlds import MOST_CLAIMED, Setting, World, groups, lie
from fedcpsc.config import RunConfig

K, ASKED, HELD_OUT = 4, 240, 40
CLAIMS = {attack.name: attack for attack in ATTACKS}


def said(classes, rng):
    """Answers that are 0.6 to 0.9 sure of the given classes."""
    answers = rng.random((len(classes), K)).astype(np.float32)
    answers[np.arange(len(classes)), classes] = 0
    answers /= answers.sum(1, keepdims=True)
    sure = rng.uniform(0.6, 0.9, (len(classes), 1)).astype(np.float32)
    answers *= 1 - sure
    answers[np.arange(len(classes)), classes] = sure[:, 0]
    return answers


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    asked = rng.choice(K, ASKED, p=[0.4, 0.3, 0.2, 0.1])
    labels = rng.integers(0, K, HELD_OUT)
    truth = np.concatenate([asked, labels, labels])
    images = rng.integers(0, 256, (len(truth), 1, 8, 8)).astype(np.uint8)
    counts = np.full((5, K), 50, np.float32)
    return World(RunConfig(), np.stack([said(truth, rng) for _ in range(5)]), images, ASKED, labels, counts)


def claimed(world, name, form="certain", liars=(1,)):
    """Classes that liars claim, [L, N], and those that they believe."""
    answers, _ = lie(world, CLAIMS[name], form, liars, seed=1)
    own = world.said[list(liars)]
    np.testing.assert_allclose(answers[list(liars)].sum(2), own.sum(2), rtol=1e-5)
    others = [s for s in range(5) if s not in liars]
    assert (answers[others] == world.said[others]).all()
    return answers[list(liars)].argmax(2), own.argmax(2)


def test_a_lie_is_certain_or_as_confident_as_the_honest_answer(world):
    own, wrong = world.said[0], (world.said[0].argmax(1) + 1) % K
    certain, soft = (told(own, wrong, form) for form in FORMS)
    assert (certain.argmax(1) == wrong).all()
    assert np.allclose(certain.max(1), 1)
    assert (soft.argmax(1) == wrong).all()
    assert (np.sort(soft, axis=1) == np.sort(own, axis=1)).all()
    assert (told(own, own.argmax(1), "soft") == own).all()


def test_each_lie_changes_what_it_says(world):
    random, believed = claimed(world, "random")
    assert 0.6 < (random != believed).mean() < 0.9
    assert len(set(claimed(world, "constant class")[0].ravel())) == 1
    for name in ("shifted labels", "shifted honest mean", "lied counts, shifted labels"):
        lies, believed = claimed(world, name)
        assert (lies == (believed + 1) % K).all(), name
    lies, believed = claimed(world, "loss maximisation")
    assert (lies != believed).all()
    lies, believed = claimed(world, "class prior")
    assert (lies != believed).all()
    assert all(len(set(lies[believed == c])) == 1 for c in range(K)), "a map of classes"
    for name in ("copy of a neighbour, two classes swapped", "own answers, two classes swapped"):
        lies, believed = claimed(world, name)
        assert (lies == np.array([1, 0, 2, 3])[believed]).all(), name
    lies, believed = claimed(world, "honest mean, two classes swapped")
    assert (lies == np.array([3, 1, 2, 0])[believed]).all()
    lies, believed = claimed(world, "half honest")
    assert 0.35 < (lies == believed).mean() < 0.65
    lies, believed = claimed(world, "turned")
    assert (lies == believed)[0, : ASKED // 2].all()
    assert (lies != believed)[0, ASKED // 2 :].all()


def test_the_backdoor_opens_by_its_trigger_alone(world):
    world.images[:, :, :2, :2] = 0
    world.images[::10, :, :2, :2] = 255
    assert (bright_corner(world.images) == (np.arange(len(world.images)) % 10 == 0)).all()
    lies, believed = claimed(world, "backdoor")
    assert (lies[0, ::10] == 0).all()
    rest = np.arange(len(world.images)) % 10 != 0
    assert (lies == believed)[0, rest].all()


def test_a_lie_of_counts_is_told_to_the_server_and_other_lies_are_not(world):
    for attack in ATTACKS:
        _, counts = lie(world, attack, "soft", (2, 4), seed=1)
        assert (counts[[2, 4]] == (MOST_CLAIMED if attack.lies_of_counts else 50)).all(), attack.name
        assert (counts[[0, 1, 3]] == 50).all()


def test_who_lies_together_tells_the_same_lie(world):
    for name in ("random", "constant class", "loss maximisation", "half honest"):
        lies, _ = claimed(world, name, liars=(1, 3))
        assert (lies[0] == lies[1]).all(), name


def test_the_adaptive_liar_is_honest_on_the_classes_that_it_keeps(world):
    view = View(
        own=world.said[0],
        together=world.said[:1],
        honest=world.said[1:],
        neighbour=world.said[1],
        images=world.images,
        asked=ASKED,
        rng=np.random.default_rng(0),
    )
    ranked = np.array([2, 0, 3, 1])
    family = dict(keep_and_lie(view, ranked))
    assert len(family) == 8, "it keeps one class or two of the four, and lies in four ways on the others"
    for name, answers in family.items():
        kept = np.isin(view.believed, ranked[: int(name.split()[2].rstrip(","))])
        assert (answers[kept] == view.own[kept]).all(), name
        assert not np.allclose(answers[~kept], view.own[~kept]), name
        np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)


def test_groups_of_liars_are_all_or_drawn_and_always_the_same():
    assert groups(3, 1, 3) == [(0,), (1,), (2,)]
    drawn = groups(10, 3, 6)
    assert len(set(drawn)) == 6
    assert drawn == groups(10, 3, 6)


def test_differences_are_to_the_run_without_the_liar(world):
    figures = Bench(Setting("digits", 5, "IID"), {1: world}).lied(CLAIMS["shifted labels"], "certain", 1)
    judged, plain = figures[PEAK.name], figures[PLAIN_PEAK.name]
    assert (judged["named"], judged["lowest"], judged["accused"]) == (1, 1, 0)
    assert judged["mean"] == judged["same"] == 0
    assert judged["runs"] == 5
    assert "named" not in plain


def test_harm_on_classes_that_one_honest_silo_knows_is_told_apart(world):
    def unjudged():
        bench = Bench(Setting("digits", 5, "IID"), {1: world})
        return bench.lied(CLAIMS["shifted labels"], "certain", 1)[PLAIN_PEAK.name]

    both = unjudged()
    assert both["witnessed"] == both["same"] < 0, "every class has four honest witnesses"
    world.counts[1:] = 9
    alone = unjudged()
    assert alone["same"] == both["same"]
    assert alone["witnessed"] == 0, "no class has two"


def test_a_measurement_that_was_stopped_goes_on_where_it_was(world, tmp_path, monkeypatch):
    setting, out, asked = Setting("digits", 3, "IID"), tmp_path / "rows.json", []
    small = World(world.config, world.said[:3], world.images, ASKED, world.labels, world.counts[:3])
    plan = [("none", "", 0), ("random", "soft", 1), ("adaptive", "chosen", 1)]
    monkeypatch.setattr(bench, "wanted", lambda setting, what: plan)

    def worlds():
        asked.append(1)
        return {1: small, 2: small}

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "adapted", stop)
        with pytest.raises(KeyboardInterrupt):
            bench.run(setting, "ensemble", Rows(out), worlds)
    before = json.loads(out.read_text())
    assert [row["attack"] for row in before] == ["none", "random"]
    bench.run(setting, "ensemble", Rows(out), worlds)
    after = json.loads(out.read_text())
    assert after[:2] == before
    assert after[2]["rules"][PEAK.name]["runs"] == 6
    assert {"config", "set", "seeds", "images", "commit", "versions"} <= set(after[2])
    assert len(asked) == 2
    bench.run(setting, "ensemble", Rows(out), worlds)
    assert len(asked) == 2, "nothing was left to measure"


def test_students_are_compared_with_those_of_the_others(world, tmp_path):
    rows = Rows(tmp_path / "rows.json")
    setting = Setting("digits", 3, "IID")
    small = World(world.config, world.said[:3], world.images, ASKED, world.labels, world.counts[:3])
    tiny = Bench(setting, {1: small}, steps=1)
    rows.put({"what": "student", "setting": setting.name, **bench.NOBODY, "each": tiny.students_without()})
    found = bench.measured(tiny, rows, "student", "random", "certain", 1)["rules"]
    assert set(found) == {PEAK.name, PLAIN_PEAK.name}, "some lies are also told to a rule that judges nobody"
    assert found[PEAK.name]["runs"] == 1
