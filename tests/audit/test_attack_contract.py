# SPDX-License-Identifier: Apache-2.0
"""What every attack that an audit may name must be; and that one file and one line add an attack."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.documented import ROOT
from support.tiny_audit import said, tiny

from benchmarks.tables.attacks import attacks as attacks_table
from fedcpsc.audit.attacks.attack import ATTACKS, Attack
from fedcpsc.audit.attacks.lira_offline import lira_offline
from fedcpsc.audit.attacks.lira_online import lira_online
from fedcpsc.audit.attacks.rmia import rmia
from fedcpsc.audit.measure import attack_each_in_turn, attacks_on, canary_scores
from fedcpsc.audit.observations import Evidence, Observations
from fedcpsc.audit.plan import AuditConfig
from fedcpsc.audit.run import audit_from_scratch
from fedcpsc.choices import DEFAULT_ATTACKS
from fedcpsc.errors import AuditError, ConfigError
from fedcpsc.typed_yaml import validate
from website.reference import pages

NAMES = ATTACKS.choices.built_in()
FROM_LABELS = {"probabilities": False, "labels": True, "either": None}


def observed(models, images, seed, labels_only=False):
    """What answers may say: more of members than of others, where `member` of the same seed says so."""
    rng = np.random.default_rng(seed)
    member = rng.random((models, images)) < 0.5
    statistic = rng.normal(size=images) + rng.normal(size=(models, images)) + 6 * member
    likelihood = 1 / (1 + np.exp(-statistic))
    return Observations(statistic, likelihood, None if labels_only else np.log(likelihood)), member


def world(labels_only=False):
    """16 models on 40 images, their coins, and what they say of a population of 25 images."""
    seen, member = observed(16, 40, 1, labels_only)
    population = replace(seen, likelihood=np.full((16, 25), 0.6), statistic=np.zeros((16, 25)))
    return seen, member, replace(population, loss=None if labels_only else np.zeros((16, 25)))


def evidence(labels_only=False):
    """The first model as the target of the 15 others."""
    seen, member, population = world(labels_only)
    others = np.arange(16) > 0
    parts = (seen.of_model(0), seen.of_models(others), member[1:], population.of_model(0))
    return Evidence(*parts, population.of_models(others))


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_may_name_it_and_it_calls_itself_so(name):
    validate(AuditConfig, {"attacks": [name, "lira_online"]}, "test")
    assert ATTACKS.get(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_when_to_take_it_in_the_reference_and_the_docs(name):
    attack = ATTACKS.get(name)
    assert len(attack.summary.split()) >= 4
    assert attack.when.split()[0] in {"where", "for", "to"}, "a clause after `take it`"
    assert not (attack.summary + attack.when + attack.needs).endswith(".")
    assert f"`{name}`: {attack.summary}; take it {attack.when}" in pages()["reference/audit.md"]
    line = f"| `{name}` | {attack.summary} | {attack.when} | {attack.needs} | [{attack.source}]"
    assert line in (ROOT / "docs/audit.md").read_text(encoding="utf-8"), "run python -m benchmarks.tables"


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_each_image_a_finite_score_that_is_higher_for_members(name):
    attack, given = ATTACKS.get(name), evidence(labels_only=ATTACKS.get(name).reads == "labels")
    before = given.member.copy()
    scores, truth = attack.scores(given), world()[1][0]
    assert scores.shape == (40,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert scores[truth].mean() > scores[~truth].mean()
    np.testing.assert_array_equal(attack.scores(given), scores)
    np.testing.assert_array_equal(given.member, before)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_run_on_what_it_can_read_and_on_nothing_else(name):
    wanted = FROM_LABELS[ATTACKS.get(name).reads]
    for labels_only in (False, True):
        seen, member, population = world(labels_only)
        found = [attack.name for attack in attacks_on(seen, [name])]
        assert found == ([name] if wanted in (None, labels_only) else [])
        for attack in attacks_on(seen, [name]):
            assert attack_each_in_turn(attack, seen, member, population).shape == (16, 40)


def test_each_score_is_to_the_bit_what_its_formula_gives():
    seen, member, population = world()
    labels = replace(seen, loss=None)
    for model in (0, 7, 15):
        others = np.arange(16) != model
        shadows = (seen.statistic[others], member[others])
        likelihoods = (population.likelihood[model], population.likelihood[others])
        expected = {
            "loss": seen.loss[model],
            "label_only": seen.statistic[model],
            "lira_online": lira_online(seen.statistic[model], *shadows),
            "lira_offline": lira_offline(seen.statistic[model], *shadows),
            "rmia": rmia(seen.likelihood[model], seen.likelihood[others], member[others], *likelihoods),
        }
        assert set(expected) == set(DEFAULT_ATTACKS)
        for name, scores in expected.items():
            on = labels if name == "label_only" else seen
            found = attack_each_in_turn(ATTACKS.get(name), on, member, population)[model]
            np.testing.assert_array_equal(found, scores)
    canaries = canary_scores(seen, member, population, 4)
    references = (seen.statistic[4:], member[4:])
    for model in range(4):
        np.testing.assert_array_equal(canaries[model], lira_online(seen.statistic[model], *references))


def test_the_loss_of_labels_is_an_error_with_a_remedy():
    with pytest.raises(AuditError, match="needs probabilities"):
        ATTACKS.get("loss").scores(evidence(labels_only=True))


def test_a_misspelt_attack_is_an_error_that_names_the_nearest_and_all():
    with pytest.raises(ConfigError) as error:
        validate(AuditConfig, {"attacks": ["lira_onlin"]}, "audit.yaml")
    message = str(error.value)
    assert message.startswith("audit.yaml: attacks")
    assert "use 'lira_online'" in message
    assert all(name in message for name in NAMES)


def test_an_audit_runs_all_attacks_where_its_plan_names_none():
    assert AuditConfig().attacks == DEFAULT_ATTACKS
    assert len(set(DEFAULT_ATTACKS)) == len(DEFAULT_ATTACKS)
    assert set(DEFAULT_ATTACKS) <= set(NAMES)


TOY = """
from fedcpsc.audit.attacks.attack import Attack


class Surest(Attack):
    def scores(self, evidence):
        return evidence.target.likelihood[0]


SUREST = Surest(
    name="toy_attack",
    summary="toy that a test registers",
    when="to see that one line is enough",
    needs="answers with probabilities",
    reads="probabilities",
    source="0000.00000",
)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Registers a toy: one file, and one line. Forgotten after the test."""
    (tmp_path / "toy_attacks.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ATTACKS.choices, "_built_in", dict(ATTACKS.choices._built_in))
    ATTACKS.choices.register("toy_attack", "toy_attacks:SUREST")
    yield importlib.import_module("toy_attacks")
    del sys.modules["toy_attacks"]


def test_one_file_and_one_line_add_an_attack_that_an_audit_then_runs(toy, tmp_path):
    assert isinstance(toy.SUREST, Attack)
    config = tiny(attacks=["toy_attack", "loss"], surfaces=["teacher"], canaries={"count": 0})
    audit = audit_from_scratch(config, tmp_path / "audit", resume=False, tell=said)
    by_name = {row["attack"]: row for row in audit["rows"]}
    assert set(by_name) == {"toy_attack", "loss"}
    assert by_name["toy_attack"]["auc"] == by_name["loss"]["auc"] > 0.55  # the loss is a rising function of it


def test_reference_and_table_follow_from_the_line(toy):
    told = "toy that a test registers"
    assert f"`toy_attack`: {told}; take it to see that one line is enough" in pages()["reference/audit.md"]
    assert any(line.startswith(f"| `toy_attack` | {told} |") for line in attacks_table())
    assert "toy_attack" not in AuditConfig().attacks, "a new attack changes no audit that does not name it"


def test_a_plan_of_attacks_that_leave_a_policy_unattacked_is_refused_by_what_each_says_of_itself(toy):
    with pytest.raises(ConfigError, match="toy_attack needs .*add lira_online"):
        validate(AuditConfig, {"attacks": ["toy_attack"], "policies": [{"kind": "label"}]}, "audit.yaml")
