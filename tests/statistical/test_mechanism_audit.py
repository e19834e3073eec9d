# SPDX-License-Identifier: Apache-2.0
"""Every mechanism that claims differential privacy is attacked through its real code; so are broken variants of it.

False alarms: each bound holds with confidence 1 - 2e-6 (`audit`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from audit import mu_lower_bound

from fedcpsc.ledger.ledger import Charge, Ledger, Reserved, Stored
from fedcpsc.privacy.mechanisms import Mechanism
from fedcpsc.privacy.votes import ConfidentGnMax, GnMax, NoiseOnly, ShardVotes, quantised
from fedcpsc.training.sharding import shards_of

Floats = npt.NDArray[np.float32]
RELEASES = 200_000
CLASSES = 2


def worlds(teachers: int, changed: int = 1, releases: int = RELEASES) -> tuple[Floats, Floats]:
    """Neighbouring outputs [T, N, 2]: in the second, `changed` teachers went from one corner to the other."""
    without = np.zeros((teachers, releases, CLASSES), np.float32)
    without[: (teachers + 1) // 2, :, 0] = 1.0
    without[(teachers + 1) // 2 :, :, 1] = 1.0
    with_ = without.copy()
    with_[:changed] = [0.0, 1.0]
    return without, with_


def audited(mechanism: Mechanism, teachers: int, changed: int = 1) -> float:
    """mu lower bound of one release, projected on the line through both worlds' true answers."""
    without, with_ = worlds(teachers, changed)
    line = np.array([-1.0, 1.0]) / math.sqrt(2)
    released = [mechanism.release(outputs) @ line for outputs in (without, with_)]
    middle = float(without.mean(0)[0] @ line + with_.mean(0)[0] @ line) / 2
    return mu_lower_bound(released[0], released[1], middle)


def claimed(mechanism: Mechanism) -> float:
    return math.sqrt(mechanism.cost())


@pytest.mark.parametrize(
    "mechanism",
    [
        ShardVotes(4, Fraction(1, 2), levels=32),
        ShardVotes(4, Fraction(1, 4), levels=1),
        ShardVotes(10, Fraction(1, 8), levels=10),
        NoiseOnly(mean_sigma=Fraction(2)),
    ],
    ids=str,
)
def test_the_proven_mu_is_reached_but_never_passed(mechanism: ShardVotes) -> None:
    found = audited(mechanism, mechanism.teachers)
    assert 0.9 * claimed(mechanism) <= found <= claimed(mechanism)


def test_gnmax_reaches_its_mu_where_two_classes_compete() -> None:
    mechanism = GnMax(teachers=5, vote_sigma=Fraction(2))
    assert 0.9 * claimed(mechanism) <= audited(mechanism, 5) <= claimed(mechanism)


def test_the_threshold_of_confident_gnmax_reaches_its_own_mu_and_both_stay_below_the_sum() -> None:
    # a winner far ahead makes the second test silent: whether it answered is then the threshold test alone
    mechanism = ConfidentGnMax(teachers=9, vote_sigma=Fraction(1, 4), threshold=9, threshold_sigma=Fraction(1))
    without = np.zeros((9, RELEASES, CLASSES), np.float32)
    without[..., 1] = 1.0
    with_ = without.copy()
    with_[0] = [1.0, 0.0]
    answered = [mechanism.release(outputs).sum(1) for outputs in (with_, without)]
    found = mu_lower_bound(answered[0], answered[1], 0.5)
    assert 0.9 <= found <= 1.0
    assert found <= claimed(mechanism)


# Wrong variants: each must be caught ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForgotRootTwo(ShardVotes):
    """Takes 1 for the sensitivity of a vote vector, and so charges half."""

    def cost(self) -> Fraction:
        return super().cost() / 2


@dataclass(frozen=True)
class ClipAfterNoise(ShardVotes):
    """Adds noise in the units of probabilities to scores that nobody clipped."""

    def release(self, outputs: Floats) -> Floats:
        logits = 3 * outputs.sum(0)  # of any size
        noise = np.random.default_rng().normal(0, float(self.teachers * self.mean_sigma), logits.shape)
        clipped: Floats = np.clip((logits + noise) / self.teachers, -9, 9).astype(np.float32)
        return clipped


@dataclass(frozen=True)
class NarrowNoise(ShardVotes):
    """Forgets that votes are counted in levels."""

    def release(self, outputs: Floats) -> Floats:
        narrow = ShardVotes(self.teachers, self.mean_sigma * Fraction(2, 3), self.levels)
        return narrow.release(outputs)


@pytest.mark.parametrize("wrong", [ForgotRootTwo, ClipAfterNoise, NarrowNoise])
def test_a_wrong_mechanism_is_caught(wrong: type[ShardVotes]) -> None:
    mechanism = wrong(4, Fraction(1, 2), levels=32)
    assert audited(mechanism, 4) > claimed(mechanism)


def test_noise_reused_for_two_queries_is_caught() -> None:
    """The difference of two answers under one noise is exact: no mu at all covers it."""
    mechanism = ShardVotes(4, Fraction(1, 2), levels=32)
    without, with_ = worlds(4, releases=2000)
    flat = np.full_like(without, 0.5)  # the same in both worlds
    line = np.array([-1.0, 1.0]) / math.sqrt(2)
    scale = float(mechanism.scale)
    found = []
    for outputs in (without, with_):
        noise = np.random.default_rng().normal(0, scale, (len(outputs[0]), CLASSES))
        both = [(quantised(part, 32).sum(0) + noise) / (4 * 32) for part in (outputs, flat)]
        found.append((both[0] - both[1]) @ line)
    middle = (found[0].mean() + found[1].mean()) / 2
    two_answers = math.sqrt(2) * claimed(mechanism)
    assert mu_lower_bound(found[0], found[1], middle) > 2 * two_answers


def test_the_ledger_never_lets_one_query_be_noised_twice(tmp_path: Path) -> None:
    """Averaging n fresh answers to one query would have mu grow as sqrt(n): the stored reply makes it one answer."""
    mechanism = ShardVotes(4, Fraction(1, 2), levels=32)
    without, _ = worlds(4, releases=5)
    ledger = Ledger.create(tmp_path / "l.sqlite", "ds", 5)
    replies = set()
    for _ in range(20):
        found = ledger.reserve("a", "payload", Charge(5))
        if isinstance(found, Reserved):
            replies.add(ledger.store("a", mechanism.release(without).tobytes()))
        else:
            assert isinstance(found, Stored)
            replies.add(found.reply)
    assert len(replies) == 1


def shards_moved(deal: Callable[[list[bytes]], npt.NDArray[np.int64]]) -> int:
    """The most shards whose content changes when one record is removed."""
    ids = [bytes([number]) * 4 for number in range(60)]

    def contents(records: list[bytes]) -> list[frozenset[bytes]]:
        dealt = deal(records)
        return [frozenset(record for record, s in zip(records, dealt, strict=True) if s == shard) for shard in range(5)]

    before = contents(ids)
    return max(
        sum(a != b for a, b in zip(before, contents(ids[:out] + ids[out + 1 :]), strict=True))
        for out in range(len(ids))
    )


def test_shards_by_position_are_caught_and_keyed_hashes_move_one() -> None:
    assert shards_moved(lambda ids: np.arange(len(ids)) % 5) == 5
    assert shards_moved(lambda ids: (np.arange(len(ids)) / (len(ids) / 5)).astype(int)) > 1  # a float split by index
    assert shards_moved(lambda ids: shards_of(ids, b"k" * 16, 5)) == 1
    # and what that does to the bound: all five teachers move, not one
    mechanism = ShardVotes(5, Fraction(1, 2), levels=8)
    assert audited(mechanism, 5, changed=3) > claimed(mechanism)
