# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.data.units import record_ids, unit_ids
from fedcpsc.errors import ConfigError, DataError, PolicyError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.models.registry import build_classifier
from fedcpsc.privacy.accounting import dp_sgd_epsilon, gaussian_epsilon
from fedcpsc.privacy.randomness import NOISE_SOURCE
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, Query
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.silos.make import make_silos
from fedcpsc.teachers.manifest import load_manifest
from fedcpsc.teachers.proof import proof_of
from fedcpsc.training.dp_sgd import train_dp_sgd
from fedcpsc.training.network import private_architecture
from fedcpsc.training.plan import (
    DpSgdTraining,
    PlainTraining,
    ShardsTraining,
    planned_history,
    training_plan,
    used_settings,
)
from fedcpsc.training.sharding import shards_of
from fedcpsc.training.shards import train_shards
from fedcpsc.training.teacher import train_teacher

SHAPE = (1, 8, 8)


def two_classes(count: int = 240, persons_of: int = 0) -> ImageSet:
    """Dark and bright images; with `persons_of`, so many consecutive ones of each person."""
    stream = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = stream.integers(0, 100, (count, *SHAPE)) + 150 * labels[:, None, None, None]
    persons = np.array([f"p{i // persons_of}" for i in range(count)]) if persons_of else None
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64), 2, persons)


CONFIG = TeachersConfig(architecture="convnet", width=4, epochs=3, batch_size=40, learning_rate=1e-2, shift=0)


def test_dp_sgd_keeps_its_epsilon_learns_and_proves_it() -> None:
    lines: list[str] = []
    plan = DpSgdTraining(epsilon=8.0, delta=1e-4)
    made = train_dp_sgd(two_classes(), CONFIG, plan, 240, 1, "convnet", lines.append)
    assert (made.kind, made.architecture) == ("torch", "convnet_gn")
    assert "group norm" in lines[0]  # the user is told
    proof = made.proof
    assert proof is not None
    assert {name: proof[name] for name in ("records", "relation", "unit", "delta", "epsilon", "noise_source")} == {
        "records": 240, "relation": "add_remove", "unit": "record", "delta": 1e-4, "epsilon": 8.0,
        "noise_source": "chacha20-os-urandom-1",
    }  # fmt: skip
    assert 7.98 < dp_sgd_epsilon(proof["history"], 1e-4) <= 8.0  # the target is kept, and little of it wasted
    ((_, rate, steps),) = proof["history"]
    assert (rate, steps) == (pytest.approx(40 / 240), 18)
    assert not any("num_batches_tracked" in name for name in made.states)


@pytest.mark.parametrize("canaries", [0, 60], ids=["without canaries", "with canaries"])
@pytest.mark.parametrize("persons_of", [0, 3], ids=["record", "person"])
def test_the_proof_does_not_tell_one_record_more(persons_of: int, canaries: int, tmp_path: Path) -> None:
    """Noise, rate, steps, epsilon: all of the configuration. True for the fields of a description, which follow."""
    training = {"kind": "dp_sgd", "epsilon": 8.0, "delta": 1e-4, "records": 250, "canaries": canaries}
    config = CONFIG.model_copy(update={"training": training, "epochs": 1})
    proofs = [
        train_teacher(two_classes(count, persons_of), config, 1, "scattering", lambda line: None, tmp_path).proof
        for count in (240, 241, 247)
    ]
    assert len({json.dumps(proof) for proof in proofs}) == 1


def test_dp_sgd_needs_a_public_number_of_records(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"training": {"kind": "dp_sgd", "epsilon": 8.0, "delta": 1e-4}, "epochs": 1})
    with pytest.raises(ConfigError, match="for example records: 12000"):
        train_teacher(two_classes(), config, 1, "scattering", print, tmp_path)
    made = train_teacher(two_classes(), config, 1, "scattering", print, tmp_path, public_size=True)
    assert made.proof is not None
    assert made.proof["records"] == 240


def test_a_plan_for_many_more_records_is_mentioned_to_the_owner_and_kept() -> None:
    lines: list[str] = []
    plan, quick = DpSgdTraining(epsilon=8.0, delta=1e-4), CONFIG.model_copy(update={"epochs": 1})
    made = train_dp_sgd(two_classes(100), quick, plan, 240, 1, "scattering", lines.append)
    assert "100 records, planned for 240" in lines[0]
    assert made.proof is not None
    assert made.proof["records"] == 240


def test_without_any_record_there_is_noise() -> None:
    plan, quick = DpSgdTraining(epsilon=8.0, delta=1e-4), CONFIG.model_copy(update={"epochs": 1})
    for architecture in ("scattering", "lenet5"):
        made = train_dp_sgd(two_classes(0), quick, plan, 240, 1, architecture, lambda line: None)
        begun = build_classifier(architecture, 2, SHAPE, quick.width, seed=derive_seed(1, "initialisation"))
        assert not torch.equal(made.states["head.bias"], begun.state_dict()["head.bias"])


@pytest.mark.parametrize(
    ("plan", "batch_size", "message"),
    [
        (DpSgdTraining(epsilon=8.0, delta=0.01), 40, "must be below 1 / 240"),
        (DpSgdTraining(epsilon=8.0, delta=1e-4), 241, "must be at most records=240"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused(plan: DpSgdTraining, batch_size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned_history(plan, 3, batch_size, 240)


def test_a_whole_batch_is_planned_like_the_gaussian_mechanism_it_is() -> None:
    ((noise, rate, steps),) = planned_history(DpSgdTraining(epsilon=2.0, delta=1e-3), 5, 100, 100)
    assert (rate, steps) == (1.0, 5)
    assert 1.95 < gaussian_epsilon(steps**0.5 / noise, 1e-3) <= 2.0


def test_only_settings_that_were_used_are_recorded() -> None:
    plan = DpSgdTraining(epsilon=8.0)
    assert "weight_decay" not in used_settings(plan, CONFIG)
    assert used_settings(PlainTraining(), CONFIG) == {
        "kind": "plain", "optimiser": "adam", "epochs": 3, "batch_size": 40, "learning_rate": 1e-2,
        "weight_decay": 5e-4, "shift": 0, "flip": False,
    }  # fmt: skip
    decayed = CONFIG.model_copy(update={"weight_decay": 0.5, "training": plan.model_dump()})
    assert used_settings(training_plan(decayed), decayed) == used_settings(plan, CONFIG)


def test_batch_norm_without_a_twin_is_refused() -> None:
    assert private_architecture("lenet5", (1, 28, 28), 4) == "lenet5"
    with pytest.raises(ConfigError, match="use scattering, convnet_gn"):
        private_architecture("vgg11", (3, 32, 32), 4)


def test_shards_are_disjoint_teachers_stacked_and_empty_ones_vote_for_all_alike(tmp_path: Path) -> None:
    images = two_classes(16)
    made = train_shards(images, CONFIG, ShardsTraining(shards=8), 1, "convnet", print, tmp_path)
    assert made.kind == "shards"
    assert made.proof == {
        "kind": "shards", "shards": 8, "assignment": "hmac-sha256", "relation": "add_remove", "unit": "record",
    }  # fmt: skip
    assert {len(tensor) for tensor in made.states.values()} == {8}
    of_persons = train_shards(two_classes(48, 3), CONFIG, ShardsTraining(shards=8), 1, "convnet", print, tmp_path)
    assert of_persons.proof == {**made.proof, "unit": "person"}
    assert (tmp_path / "shard.key").stat().st_mode & 0o777 == 0o600
    again = train_shards(images, CONFIG, ShardsTraining(shards=8), 1, "convnet", print, tmp_path)
    assert all(torch.equal(tensor, again.states[name]) for name, tensor in made.states.items())  # same key, same seed


def test_a_person_lies_in_one_shard_and_nobody_else_moves_it() -> None:
    images, key = two_classes(240, 5), b"k" * 32
    dealt = shards_of(unit_ids(images), key, 8)
    assert all(len(set(dealt[images.persons == person])) == 1 for person in set(images.persons))
    assert len(set(dealt)) == 8
    fewer = images.subset(np.flatnonzero(images.persons != "p3"))
    assert np.array_equal(shards_of(unit_ids(fewer), key, 8), dealt[images.persons != "p3"])
    assert len(set(shards_of(record_ids(images.images, images.labels), key, 8)[:5])) > 1  # record by record would not


def test_more_shards_than_images_bear_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is too many for 16 images"):
        train_shards(two_classes(16), CONFIG, ShardsTraining(shards=9), 1, "convnet", print, tmp_path)
    with pytest.raises(DataError, match="is too many for 8 persons"):
        train_shards(two_classes(16, 2), CONFIG, ShardsTraining(shards=5), 1, "convnet", print, tmp_path)


def a_run(training: dict[str, Any], mechanism: dict[str, Any]) -> RunConfig:
    tree = {
        "data": {"train_limit": 120, "test_limit": 20},
        "silos": {"count": 1, "partition": {"kind": "iid"}, "policy": {"mechanism": mechanism}},
        "teachers": {"width": 4, "epochs": 1, "training": training},
    }
    return RunConfig.model_validate(tree)


@pytest.mark.parametrize(
    ("training", "mechanism"),
    [
        ({"kind": "shards", "shards": 4}, {"kind": "shard_votes", "sigma": 1.0, "epsilon": 8.0}),
        ({"kind": "shards", "shards": 4}, {"kind": "gnmax", "sigma": 4.0, "epsilon": 8.0}),
        ({"kind": "dp_sgd", "epsilon": 8.0, "records": 100}, {"kind": "dp_sgd", "epsilon": 8.0}),
        ({"kind": "plain"}, {"kind": "noise_only", "sigma": 4.0, "epsilon": 8.0}),
    ],
)
def test_a_silo_made_with_a_guarantee_answers_under_it(
    training: dict[str, Any], mechanism: dict[str, Any], tmp_path: Path
) -> None:
    make_silos(a_run(training, mechanism), tmp_path)
    gatekeeper = open_gatekeeper(tmp_path / "0")
    described = gatekeeper.describe(DescribeRequest())
    assert isinstance(described, Description)
    assert described.claim.dp
    assert described.claim.mechanism == mechanism["kind"]
    answer = gatekeeper.answer(Query("0" * 32, AnswerForm.PROBABILITIES, np.zeros((3, 1, 8, 8), np.uint8)))
    assert isinstance(answer, Answer)
    assert gatekeeper.ledger.verify().unprotected == 0
    gatekeeper.close()
    assert make_silos(a_run(training, mechanism), tmp_path)[0].reused


def test_fixed_features_are_computed_once_and_change_nothing_in_the_proof() -> None:
    plan = DpSgdTraining(epsilon=8.0, delta=1e-4, optimiser="sgd", max_grad_norm=0.1)
    fixed = CONFIG.model_copy(update={"learning_rate": 1.0})
    made = train_dp_sgd(two_classes(), fixed, plan, 240, 1, "scattering", print)
    proof = made.proof
    assert proof is not None
    ((_, rate, steps),) = proof["history"]
    assert (proof["records"], rate, steps) == (
        240,
        pytest.approx(40 / 240),
        18,
    )  # the same history as of a whole network
    assert set(made.states) == {"head.weight", "head.bias"}
    network = build_classifier("scattering", 2, SHAPE, seed=0).eval()
    network.load_state_dict(made.states)
    images = two_classes()
    with torch.no_grad():
        guesses = network(to_pixels(torch.from_numpy(images.images))).argmax(1).numpy()
    assert (guesses == images.labels).mean() > 0.9


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ({"n": 240}, "32-bit seed.*train the teacher again; the new training composes"),  # as it was before
        ({"records": 240, "noise_source": "torch"}, "is unknown here, which knows chacha20-os-urandom-1"),
        ({"records": 240, "noise_source": NOISE_SOURCE, "n": 240}, "is no proof"),
        ({"noise_source": NOISE_SOURCE}, "is no proof"),
    ],
)
def test_a_claim_whose_noise_can_be_drawn_again_is_lost(privacy: dict[str, Any], message: str, tmp_path: Path) -> None:
    make_silos(a_run({"kind": "plain"}, {"kind": "none"}), tmp_path)
    claim = {"kind": "dp_sgd", "epsilon": 1.95, "delta": 1e-5, "history": [[2.0, 0.02, 2000]], **privacy}
    manifest = load_manifest(tmp_path / "0").model_copy(update={"privacy": claim})
    with pytest.raises(PolicyError, match=message):
        proof_of(manifest)
