# SPDX-License-Identifier: Apache-2.0
"""Mechanisms that add noise to each answer: integer votes, integer Gaussian noise, exact Gaussian accounting.

Common to all: a teacher's distribution becomes integers >= 0 that sum to at most Q (`levels`). For two such vectors
|a - b|^2 = |a|^2 + |b|^2 - 2 a.b <= Q^2 + Q^2, so one teacher moves their sum by at most sqrt(2) Q in L2: exactly, with
no rounding slack. A row that is not a distribution (NaN, an empty shard) becomes zeros, which is within that bound.
Clipping comes before noise (the votes are clipped by being quantised); whatever follows the noise is post-processing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import TeacherError, explain
from fedcpsc.privacy.gnmax import ORDERS, realised_curve
from fedcpsc.privacy.mechanisms import Floats, Mechanism
from fedcpsc.privacy.noise import rounded_gaussian

__all__ = ["ConfidentGnMax", "GnMax", "NoiseOnly", "ShardVotes", "quantised"]

Integers = npt.NDArray[np.int64]


def quantised(probabilities: Floats, levels: int) -> Integers:
    """Votes: int64 [..., K], each row >= 0 with sum at most `levels`, by largest remainders.

    Args:
        probabilities: [..., K]; rows that are no distributions give zeros.
        levels: Q >= 1; 1 gives one vote to the largest class.
    """
    exact = probabilities.astype(np.float64) * levels
    sound = np.isfinite(exact).all(-1) & (exact >= 0).all(-1) & (np.abs(exact.sum(-1) / levels - 1) < 1e-3)
    exact = np.where(sound[..., np.newaxis], exact, 0.0)
    votes = np.floor(exact).astype(np.int64)
    missing = np.where(sound, levels - votes.sum(-1), 0)
    # rank of each class by its remainder, ties to the lower index
    rank = np.argsort(np.argsort(votes - exact, axis=-1, kind="stable"), axis=-1, kind="stable")
    votes += rank < missing[..., np.newaxis]
    too_many = votes.sum(-1, keepdims=True) > levels  # rows summing to a little over 1
    return np.where(too_many, 0, votes)


@dataclass(frozen=True)
class ShardVotes(Mechanism):
    """The noisy mean of K teachers on disjoint shards.

    Formal guarantee: n answers are mu-GDP per record, mu = sqrt(2 n) / (K sigma), under add/remove, with queries chosen
    adaptively. Proof: a record belongs to one shard, found by a keyed hash of the record alone, so adding or removing
    it changes one teacher's votes; the sum then moves by at most sqrt(2) Q in L2 (module docstring), and the noise is
    round(N(0, (K Q sigma)^2)) on each count, a post-processing of the Gaussian mechanism (`noise`). Dividing by K Q is
    post-processing.

    | edge | |
    |---|---|
    | replace-one with content hashes | moves two shards: mu doubles; the claim is for add/remove only |
    | shards by position in a list | adding a record shifts all shards: no guarantee (`sharding` hashes) |
    | shared normalisation, validation or private pre-training | breaks disjointness |
    | fresh noise for a replayed query | a new answer; the ledger sends the stored reply instead |

    Args:
        teachers: K >= 1.
        mean_sigma: sigma, standard deviation of the noise on the mean of the teachers' probabilities, > 0.
        levels: Q, votes of one teacher.
    """

    teachers: int
    mean_sigma: Fraction
    levels: int = 32

    name = "shard_votes"
    dp = True
    shards = True

    def cost(self) -> Fraction:
        """2 / (K sigma)^2."""
        return 2 / (self.teachers * self.mean_sigma) ** 2

    @property
    def scale(self) -> Fraction:
        """Noise on the integer counts: K Q sigma."""
        return self.teachers * self.levels * self.mean_sigma

    @property
    def sensitivity(self) -> float:
        """sqrt(2) Q."""
        return math.sqrt(2) * self.levels

    @property
    def sigma(self) -> float:
        """`scale`."""
        return float(self.scale)

    @property
    def scales(self) -> dict[str, float]:
        """`sigma`, in levels."""
        return {"sigma": self.sigma}

    @property
    def noise_sigma(self) -> float:
        """`mean_sigma`."""
        return float(self.mean_sigma)

    def release(self, outputs: Floats) -> Floats:
        """Noisy means, float32 [N, K]; may leave [0, 1]."""
        _as_many(outputs, self.teachers)
        votes = quantised(outputs, self.levels).sum(0)
        noisy = votes + rounded_gaussian(self.scale, votes.shape)
        mean: Floats = (noisy / (self.teachers * self.levels)).astype(np.float32)
        return mean


@dataclass(frozen=True)
class NoiseOnly(ShardVotes):
    """Noise on a single teacher that was trained without privacy.

    Formal guarantee: n answers are mu-GDP, mu = sqrt(2 n) / sigma. Proof: as `ShardVotes` with K = 1; one record may
    replace the whole teacher, and the diameter of the distributions is sqrt(2). It is the same for every neighbouring
    relation, up to the silo's whole data set. That generality is why it is expensive: 1e4 answers at sigma = 1 have
    epsilon 1.06e4 at delta 1e-5. The policy check prints the true figure.
    """

    teachers: int = 1
    mean_sigma: Fraction = Fraction(1)

    name = "noise_only"
    shards = False


@dataclass(frozen=True)
class GnMax(Mechanism):
    """The class with the most votes after noise (PATE's GNMax, Papernot et al. 2018, arXiv 1802.08908).

    Formal guarantee: n answers are mu-GDP per record, mu = sqrt(2 n) / sigma, under add/remove. Proof: the noisy
    histogram of hard votes is `ShardVotes` with Q = 1 and noise sigma on the counts; its argmax is post-processing. It
    costs the same as releasing the histogram, so it is offered for comparison and for label-only silos.

    Edges: those of `ShardVotes`; ties go to the lower class, independently of the data.

    Args:
        teachers: K >= 1.
        vote_sigma: standard deviation of the noise on the counts, > 0.
    """

    teachers: int
    vote_sigma: Fraction

    name = "gnmax"
    dp = True
    shards = True

    def cost(self) -> Fraction:
        """2 / sigma^2."""
        return 2 / self.vote_sigma**2

    @property
    def sensitivity(self) -> float:
        """sqrt(2)."""
        return math.sqrt(2)

    @property
    def sigma(self) -> float:
        """`vote_sigma`."""
        return float(self.vote_sigma)

    @property
    def scales(self) -> dict[str, float]:
        """`sigma`, in votes."""
        return {"sigma": self.sigma}

    def release(self, outputs: Floats) -> Floats:
        """One-hot rows, float32 [N, K]."""
        return self._winners(self._histogram(outputs))

    def realised(self, outputs: Floats, released: Floats) -> npt.NDArray[np.float64]:
        """What this release lost on these very votes, at `gnmax.ORDERS`: for the owner alone, never sent.

            Args:
        XX
        """
        return realised_curve(self._histogram(outputs)[released.any(1)], self.sigma)

    def _histogram(self, outputs: Floats) -> Integers:
        _as_many(outputs, self.teachers)
        histogram: Integers = quantised(outputs, 1).sum(0)
        return histogram

    def _winners(self, votes: Integers) -> Floats:
        noisy = votes + rounded_gaussian(self.vote_sigma, votes.shape)
        winners: Floats = np.eye(votes.shape[1], dtype=np.float32)[noisy.argmax(1)]
        return winners


@dataclass(frozen=True)
class ConfidentGnMax(GnMax):
    """GNMax that answers only where the teachers agree; elsewhere a row of zeros, which the server reads as uniform.

    Formal guarantee: n queries, answered or not, are mu-GDP per record, mu^2 = n (1 / sigma_1^2 + 2 / sigma^2), under
    add/remove. Proof: the largest count moves by at most 1 when one teacher changes its vote, so comparing it, noised
    by sigma_1, with a public threshold is a Gaussian release of sensitivity 1; GNMax follows; they compose. Every query
    pays for both: whether the second was needed is data-dependent.

    Args:
        threshold: T, in votes.
        threshold_sigma: sigma_1 > 0.
    """

    threshold: int = 0
    threshold_sigma: Fraction = Fraction(1)

    name = "confident_gnmax"

    def cost(self) -> Fraction:
        """1 / sigma_1^2 + 2 / sigma^2."""
        return super().cost() + 1 / self.threshold_sigma**2

    @property
    def scales(self) -> dict[str, float]:
        """Both noises, in votes."""
        return {"sigma": self.sigma, "threshold_sigma": float(self.threshold_sigma)}

    def release(self, outputs: Floats) -> Floats:
        """One-hot rows, or zeros below the threshold, float32 [N, K]."""
        votes = self._histogram(outputs)
        agreed = votes.max(1) + rounded_gaussian(self.threshold_sigma, votes.shape[:1]) >= self.threshold
        return np.where(agreed[:, np.newaxis], self._winners(votes), np.float32(0))

    def realised(self, outputs: Floats, released: Floats) -> npt.NDArray[np.float64]:
        """As `GnMax.realised` for the queries it answered, and every query's threshold test at its full price."""
        tests = len(released) * np.asarray(ORDERS) / (2 * float(self.threshold_sigma) ** 2)
        return tests + super().realised(outputs, released)


def _as_many(outputs: Floats, teachers: int) -> None:
    if len(outputs) != teachers:
        raise TeacherError(
            explain("teachers", len(outputs), f"the mechanism was proven for {teachers}", "fix the policy")
        )
