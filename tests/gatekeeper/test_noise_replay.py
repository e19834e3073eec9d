# SPDX-License-Identifier: Apache-2.0
"""Nobody replays the noise: with every seed that the project records or sends, replayed noise fits by chance alone.

The attack: weights after training are their public beginning plus a fixed linear filter of gradients and noise. Noise
drawn again under the right seed, put through the filter, correlates with the weights; under a wrong one the correlation
is N(0, 1) after scaling by the root of the number of weights. With |z| < 6 a single wrong seed is taken for right with
probability 2e-9, any of the some 600 tried with 1.2e-6. Trainings whose noise does come from a seed are found: z > 20.
"""

import secrets
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedcpsc.data.images import ImageSet
from fedcpsc.models.registry import build_classifier
from fedcpsc.privacy.randomness import SecretStream
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training.dp_sgd import train_dp_sgd
from fedcpsc.training.plan import DpSgdTraining, planned_history

UNITS, BATCH, EPOCHS, NORM, RATE, RUN_SEED = 200, 50, 3, 0.1, 0.5, 7
TEACHER_SEED = derive_seed(RUN_SEED, "teacher", 0)
PLAN = DpSgdTraining(epsilon=1.0, delta=1e-4, optimiser="sgd", max_grad_norm=NORM)
CONFIG = TeachersConfig(architecture="scattering", epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, shift=0)
Draw = Callable[[tuple[int, ...]], np.ndarray]


def trained() -> np.ndarray:
    """Weights less their public beginning [P]."""
    rng = np.random.default_rng(0)
    images = ImageSet(rng.integers(0, 256, (UNITS, 1, 8, 8), np.uint8), rng.integers(0, 10, UNITS), 10)
    made = train_dp_sgd(images, CONFIG, PLAN, UNITS, TEACHER_SEED, "scattering", lambda line: None)
    begun = build_classifier("scattering", 10, (1, 8, 8), seed=derive_seed(TEACHER_SEED, "initialisation"))
    moved = [made.states[f"head.{name}"] - begun.head.get_parameter(name).detach() for name in ("weight", "bias")]
    return torch.cat([part.flatten() for part in moved]).numpy().astype(np.float64)


def z_of(moved: np.ndarray, draw: Draw) -> float:
    """How well noise drawn so explains the weights, in standard deviations of chance."""
    ((_, _, steps),) = planned_history(PLAN, EPOCHS, BATCH, UNITS)
    guess = np.zeros(len(moved))
    for step in range(steps):
        share = (1 - 0.9 ** (steps - step)) / (1 - 0.9)  # momentum carries a step on through all later ones
        guess -= share * draw((len(moved),))
    return float(np.corrcoef(guess, moved)[0, 1] * len(moved) ** 0.5)


def by_torch(seed: int) -> Draw:
    stream = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=stream).numpy().astype(np.float64)


def by_numpy(seed: int) -> Draw:
    return np.random.default_rng(seed).standard_normal


def recorded_seeds() -> set[int]:
    """Every seed that stands in a configuration, a manifest or a message, their low 32 bits, and those around."""
    known = {0, RUN_SEED, TEACHER_SEED, *(derive_seed(TEACHER_SEED, name) for name in ("initialisation", "order"))}
    known |= {seed & 0xFFFFFFFF for seed in known}
    return {(seed + shift) % 2**63 for seed in known for shift in range(-16, 17)}


def test_no_seed_that_anybody_knows_replays_the_noise() -> None:
    moved, seeds = trained(), recorded_seeds()
    assert len(seeds) > 200
    assert max(abs(z_of(moved, make(seed))) for seed in seeds for make in (by_torch, by_numpy)) < 6


@pytest.mark.parametrize("make", [by_torch, by_numpy])
def test_the_attack_finds_the_seed_where_there_is_one(
    make: Callable[[int], Draw], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = make(TEACHER_SEED + 3)
    monkeypatch.setattr(SecretStream, "normals", lambda self, shape: draw(shape))
    moved = trained()
    found = {seed: z_of(moved, make(seed)) for seed in range(TEACHER_SEED - 5, TEACHER_SEED + 5)}
    assert max(found, key=lambda seed: found[seed]) == TEACHER_SEED + 3
    assert found.pop(TEACHER_SEED + 3) > 20
    assert max(map(abs, found.values())) < 6


def test_seeds_that_agree_in_32_bits_give_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch takes the low 32 bits: a generator seeded by `secrets.randbits` would have made the two alike."""
    weights = []
    for seed in (5, 5 + 3 * 2**32, 5):
        monkeypatch.setattr(secrets, "randbits", lambda bits, seed=seed: seed)
        torch.manual_seed(seed)
        weights.append(trained())
    old = [torch.randn(9, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5 + 3 * 2**32)]
    assert torch.equal(*old)
    assert not np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
