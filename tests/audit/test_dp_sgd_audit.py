# SPDX-License-Identifier: Apache-2.0
"""The one-run audit against the real DP-SGD training: canaries planted by it, guesses from the teacher's answers.

Images and labels are random, so that whatever a teacher knows of a canary it remembers. The claim is epsilon 1; of 80
guesses among some 200 canaries (coins decide how many) 66 must be right to refute it. Without noise 74 to 80 are (40
trainings measured); with it, 36 to 57 (60 measured, mean 46). An honest training is accused with probability at most
5 % by theorem; by an attack that is right in two thirds of its guesses, with probability 0.0013.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from fedcpsc.audit.attacks.loss import loss_scores
from fedcpsc.audit.bounds import one_run_epsilon
from fedcpsc.audit.roc import guesses_from
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.models.registry import build_classifier
from fedcpsc.privacy.randomness import SecretStream
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training.canaries import canary_images
from fedcpsc.training.teacher import train_teacher

CANARIES, EACH_WAY, DELTA = 200, 40, 1e-4
CLAIM = {"kind": "dp_sgd", "epsilon": 1.0, "delta": DELTA, "canaries": CANARIES, "records": 2 * CANARIES}
CONFIG = TeachersConfig(
    architecture="scattering", epochs=10, batch_size=100, learning_rate=0.05, shift=0, training=CLAIM
)


def private_images() -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (2 * CANARIES, 1, 8, 8), np.uint8), rng.integers(0, 10, 2 * CANARIES), 10)


def audited(seed: int, folder: Path) -> tuple[float, float, int]:
    """(epsilon claimed, epsilon proven to be passed, right guesses) of one training."""
    images = private_images()
    made = train_teacher(images, CONFIG, seed, "scattering", lambda line: None, folder)
    assert made.canaries is not None
    assert made.proof is not None
    network = build_classifier("scattering", 10, (1, 8, 8)).eval()
    network.load_state_dict(made.states)
    asked = canary_images(images, made.canaries)
    with torch.inference_mode():
        answers = torch.softmax(network(to_pixels(torch.from_numpy(asked.images))), 1).numpy()
    guesses, right = guesses_from(loss_scores(answers, asked.labels), made.canaries.included, EACH_WAY, EACH_WAY)
    return made.proof["epsilon"], one_run_epsilon(len(made.canaries), guesses, right, DELTA), right


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_honest_training_is_accused_in_none_of_20_runs(tmp_path: Path) -> None:
    found = [audited(seed, tmp_path) for seed in range(20)]
    assert all(claim == 1.0 for claim, _, _ in found)
    assert sum(bound > claim for claim, bound, _ in found) == 0
    # all but coin tosses: 57 % right on average, of which 20 trainings' mean has a standard deviation of 1.3 %
    assert sum(right for _, _, right in found) < 0.7 * 20 * 2 * EACH_WAY


def test_training_without_noise_that_claims_epsilon_1_is_accused_in_5_of_5_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SecretStream, "normals", lambda self, shape: np.zeros(shape))
    found = [audited(seed, tmp_path) for seed in range(5)]
    assert all(claim == 1.0 for claim, _, _ in found)  # the accountant counts noise that was never added
    assert sum(bound > claim for claim, bound, _ in found) == 5


def test_how_many_right_guesses_refute_the_claim() -> None:
    least = next(v for v in range(81) if one_run_epsilon(CANARIES, 80, v, DELTA) > 1.0)
    assert least == 66
    assert binom.sf(least - 1, 80, 2 / 3) < 0.0013
