from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedcpsc.config import RunConfig, TeachersConfig
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.errors import ConfigError, DataError
from fedcpsc.gatekeeper.gatekeeper import open_gatekeeper
from fedcpsc.gatekeeper.private_training import private_architecture, train_dp_sgd, train_shards
from fedcpsc.gatekeeper.silos import make_silos
from fedcpsc.gatekeeper.training_plan import DpSgdTraining, ShardsTraining
from fedcpsc.models.registry import build_classifier
from fedcpsc.privacy.accounting import dp_sgd_epsilon
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, Query

SHAPE = (1, 8, 8)


def two_classes(count: int = 240) -> ImageSet:
    """Dark and bright images."""
    stream = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = stream.integers(0, 100, (count, *SHAPE)) + 150 * labels[:, None, None, None]
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64), 2)


CONFIG = TeachersConfig(architecture="convnet", width=4, epochs=3, batch_size=40, learning_rate=1e-2, shift=0)


def test_dp_sgd_keeps_its_epsilon_learns_and_proves_it() -> None:
    lines: list[str] = []
    made = train_dp_sgd(two_classes(), CONFIG, DpSgdTraining(epsilon=8.0, delta=1e-4), 1, "convnet", lines.append)
    assert (made.kind, made.architecture) == ("torch", "convnet_gn")
    assert "group norm" in lines[0]  # the user is told
    proof = made.proof
    assert proof is not None
    assert (proof["n"], proof["relation"], proof["unit"], proof["delta"]) == (240, "add_remove", "record", 1e-4)
    assert 7.0 < proof["epsilon"] <= 8.05
    assert dp_sgd_epsilon(proof["history"], 1e-4) == pytest.approx(proof["epsilon"])
    ((_, rate, steps),) = proof["history"]
    assert (rate, steps) == (pytest.approx(40 / 240), 18)
    assert not any("num_batches_tracked" in name for name in made.states)


def test_dp_noise_does_not_come_from_the_public_seed() -> None:
    quick = CONFIG.model_copy(update={"epochs": 1})
    one, two = (
        train_dp_sgd(two_classes(), quick, DpSgdTraining(epsilon=4.0, delta=1e-4), 1, "convnet_gn", print)
        for _ in range(2)
    )
    assert not torch.equal(one.states["head.weight"], two.states["head.weight"])


def test_a_delta_that_would_allow_publishing_a_record_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be below 1 / 240"):
        train_dp_sgd(two_classes(), CONFIG, DpSgdTraining(epsilon=8.0, delta=0.01), 1, "convnet", print)


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
    assert (tmp_path / "shard.key").stat().st_mode & 0o777 == 0o600
    again = train_shards(images, CONFIG, ShardsTraining(shards=8), 1, "convnet", print, tmp_path)
    assert all(torch.equal(tensor, again.states[name]) for name, tensor in made.states.items())  # same key, same seed


def test_more_shards_than_images_bear_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is too many for 16"):
        train_shards(two_classes(16), CONFIG, ShardsTraining(shards=9), 1, "convnet", print, tmp_path)


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
        ({"kind": "dp_sgd", "epsilon": 8.0}, {"kind": "dp_sgd", "epsilon": 8.1}),
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
    made = train_dp_sgd(two_classes(), fixed, plan, 1, "scattering", print)
    proof = made.proof
    assert proof is not None
    ((_, rate, steps),) = proof["history"]
    assert (proof["n"], rate, steps) == (240, pytest.approx(40 / 240), 18)  # the same history as of a whole network
    assert set(made.states) == {"head.weight", "head.bias"}
    network = build_classifier("scattering", 2, SHAPE, seed=0).eval()
    network.load_state_dict(made.states)
    images = two_classes()
    with torch.no_grad():
        guesses = network(to_pixels(torch.from_numpy(images.images))).argmax(1).numpy()
    assert (guesses == images.labels).mean() > 0.9
