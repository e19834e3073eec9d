# SPDX-License-Identifier: Apache-2.0
"""The secret stream: right distributions, wrong scales rejected, and no entropy but the operating system's."""

import os
import random
import secrets
from itertools import count

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from scipy.stats import binomtest, chisquare, kstest, norm

from fedcpsc.errors import PolicyError
from fedcpsc.privacy import randomness
from fedcpsc.privacy.randomness import SecretStream

DRAWS = 200_000
FALSE_ALARM = 1e-6


def everything(stream: SecretStream) -> list[np.ndarray]:
    return [stream.coins(0.3, 9), stream.normals((2, 3)), stream.uniform(5), stream.below(7, 9), stream.shuffle(9)]


def alike(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_normals_are_normal_and_of_no_other_scale() -> None:
    """False alarm 1e-6."""
    draws = SecretStream().normals((400, 500))
    assert draws.shape == (400, 500)
    assert kstest(draws.ravel(), norm.cdf).pvalue > FALSE_ALARM
    for wrong in (2 / 3, 3 / 2):
        assert kstest(draws.ravel() * wrong, norm.cdf).pvalue < FALSE_ALARM


def test_normals_are_independent_of_one_another_and_of_the_calls_before() -> None:
    stream = SecretStream()
    one, two = stream.normals((DRAWS,)), stream.normals((DRAWS,))
    bound = 5 / DRAWS**0.5  # false alarm 6e-7 each
    assert abs(np.corrcoef(one, two)[0, 1]) < bound
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < bound
    assert abs(np.corrcoef(one[:-1] ** 2, one[1:] ** 2)[0, 1]) < bound


def test_a_normal_is_the_sum_of_four_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """One float draw betrays what it was added to; the sum of four does not (Holohan & Braghin 2021)."""
    stream = SecretStream()
    drawn = iter([np.array([1.0]), np.array([2.0]), np.array([3.0]), np.array([-4.0])])
    monkeypatch.setattr(stream, "_one_draw", lambda size: next(drawn))
    assert stream.normals((1,)) == [1.0]
    assert next(drawn, None) is None


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9])
def test_coins_fall_at_their_rate_and_at_no_other(rate: float) -> None:
    heads = int(SecretStream().coins(rate, DRAWS).sum())
    assert binomtest(heads, DRAWS, rate).pvalue > FALSE_ALARM
    for wrong in (2 / 3, 3 / 2):
        assert binomtest(heads, DRAWS, min(1.0, rate * wrong)).pvalue < FALSE_ALARM


def words(monkeypatch: pytest.MonkeyPatch, *given: int) -> SecretStream:
    """A stream whose 64-bit numbers are these, in turn."""
    stream, left = SecretStream(), iter(given)
    monkeypatch.setattr(stream, "_words", lambda size: np.array([next(left) for _ in range(size)], np.uint64))
    return stream


def test_a_coin_compares_all_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    threshold = int(0.1 * 2**64)  # exact: 0.1 is a float whose last bit is above 2^-64
    assert words(monkeypatch, threshold - 1, threshold).coins(0.1, 2).tolist() == [True, False]
    assert words(monkeypatch, 0, 2**64 - 1).coins(0.0, 2).tolist() == [False, False]
    assert words(monkeypatch).coins(1.0, 2).tolist() == [True, True]


def test_uniform_numbers_and_normals_stay_finite_at_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = words(monkeypatch, 0, 2**64 - 1).uniform(2)
    assert ends.tolist() == [2.0**-53, 1 - 2.0**-53]
    assert np.isfinite(words(monkeypatch, 0, 1, 2**64 - 1, 2**64 - 2)._one_draw(4)).all()
    assert kstest(SecretStream().uniform(DRAWS), "uniform").pvalue > FALSE_ALARM


def test_integers_are_uniform_and_the_uneven_rest_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chisquare(np.bincount(SecretStream().below(7, DRAWS), minlength=7)).pvalue > FALSE_ALARM
    assert words(monkeypatch, 2**64 - 1, 5, 2**64 - 3).below(7, 2).tolist() == [(2**64 - 3) % 7, 5]
    assert SecretStream().below(1, 3).tolist() == [0, 0, 0]


def test_orders_are_uniform_and_ties_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SecretStream()
    seen = np.array([stream.shuffle(3) @ [9, 3, 1] for _ in range(6000)])
    _, often = np.unique(seen, return_counts=True)
    assert len(often) == 6
    assert chisquare(often).pvalue > FALSE_ALARM
    assert words(monkeypatch, 4, 4, 7, 2).shuffle(2).tolist() == [1, 0]


def test_nothing_drawn_is_no_error() -> None:
    stream = SecretStream()
    assert [len(stream.coins(0.5, 0)), len(stream.below(3, 0)), stream.normals((0, 4)).size] == [0, 0, 0]


def test_the_operating_system_is_the_only_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded() -> SecretStream:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the global generator has no say
        torch.manual_seed(1)
        return SecretStream()

    monkeypatch.setattr(secrets, "randbits", lambda bits: 1)
    assert not alike(everything(seeded()), everything(seeded()))  # all other sources the same: other draws
    counter = count()
    monkeypatch.setattr(os, "urandom", lambda size: bytes([next(counter) % 2]) * size)
    assert alike(everything(SecretStream()), everything(SecretStream()))  # the same urandom: the same draws


def test_the_key_has_256_bits_and_gives_chacha20(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return bytes(range(size))

    monkeypatch.setattr(os, "urandom", urandom)
    first = SecretStream()._words(4)
    assert asked == [32, 12]
    cipher = Cipher(ChaCha20(bytes(range(32)), bytes(4) + bytes(range(12))), mode=None).encryptor()
    assert first.tobytes() == cipher.update(bytes(32))


def test_a_new_key_is_taken_before_the_counter_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "_BYTES_A_KEY", 64)
    stream = SecretStream()
    monkeypatch.setattr(os, "urandom", bytes)
    stream._words(8)
    known = Cipher(ChaCha20(bytes(32), bytes(16)), mode=None).encryptor().update(bytes(64))
    assert stream._words(8).tobytes() == known


def test_there_is_no_seed_and_no_false_rate() -> None:
    with pytest.raises(TypeError):
        SecretStream(1)  # type: ignore[call-arg]
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(PolicyError, match="rate"):
            SecretStream().coins(rate, 1)
    for bound in (0, 2**63 + 1):
        with pytest.raises(PolicyError, match="bound"):
            SecretStream().below(bound, 1)
