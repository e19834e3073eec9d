# SPDX-License-Identifier: Apache-2.0
"""What an aggregation rule is, and the two families that the built-in ones belong to.

A rule sees the answers p_s of silos s to some images, and how much each silo counts for each image: w_s where it
answered (1 where all silos answer in the same form and noise, else less: `fedcpsc.distillation.information`), 0 where
it did not.

- `LinearRule`: `p_c = sum_s v_sc p_sc / sum_s v_sc`, v_sc >= 0 a weight of silo s for the image, the same for all
  classes c where silos are not judged class by class.
- `LogRule`: `p_c = exp(sum_s W_sc log(p_sc + smoothing)) - smoothing`, normalised; W_sc are the weights of silos for
  class c, of sum 1. The smaller the smoothing, the more a single silo can veto a class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.choices import AGGREGATION_RULES
from fedcpsc.errors import ConfigError, explain
from fedcpsc.registry import Entry, Registry

__all__ = ["RULES", "AggregationRule", "Answered", "AnswersSoFar", "Floats", "LinearRule", "LogRule", "confidence"]

_LEAST = 1e-9  # of a pooled probability

Floats: TypeAlias = npt.NDArray[np.float32]
Answered: TypeAlias = npt.NDArray[np.bool_]


class AnswersSoFar(Protocol):
    """All answers that a rule may learn from.

    Attributes:
        shape: (S, K), the numbers of silos and of classes.
    """

    @property
    def shape(self) -> tuple[int, int]: ...  # noqa: D102 - above

    def pieces(self) -> Iterator[tuple[Floats, Answered]]:
        """Every answer once: answers [S, n, K], rows of zeros where there is none, and who gave one, [S, n].

        Classes that a silo does not know are 0. A row sums to 1, or to less where a silo says that an image is none of
        its classes: to the part that says otherwise.
        """
        ...

    def sample(self) -> tuple[Floats, Answered]:
        """The same of some thousand images, spread evenly over what was asked."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class AggregationRule(Entry, ABC):
    """Makes one soft target of many answers.

    Attributes:
        needs_class_reports: whether every silo must report its class counts; they are then the rule's `counts`.
        learns_from_answers: whether its `counts` come from all answers so far (`learn`); each round's news then changes
            older targets, too.
        may_tell_label_mix: whether the silos' shares in a class may tell how many of its images each silo has; a report
            that leaves the server then keeps them to itself.
    """

    needs_class_reports: bool = False
    learns_from_answers: bool = False
    may_tell_label_mix: bool = True

    @abstractmethod
    def pool(self, answers: Floats, present: Floats, counts: Floats | None, smoothing: float) -> Floats:
        """Targets before they are normalised: [N, K], finite and >= 0. Who calls it divides each row by its sum.

        Args:
            answers: answers, [S, N, K]; rows sum to 1, or are 0 where there is none. Classes that a silo does not know
                are 0. Where a silo says that an image is none of its classes, a row is as `heard` gives it.
            present: how much each silo counts, [S, N, 1] in [0, 1], or [S, N, K] where silos are judged class by class
                (`aggregation.robust`); 0 where it gave no answer.
            counts: what is known of the silos' classes, [S, K] >= 0; None for a rule that needs no such thing.
            smoothing: `aggregation.smoothing`, > 0, for logarithms.
        """

    def heard(self, answers: Floats) -> Floats:
        """Answers as the rule takes them where silos can say "none of my classes", whose odds are in `present`.

        Here they are left as they are: a row sums to the part that says otherwise. In a mean of logarithms a class that
        one silo alone knows has but that silo's word, however little it counts, so that the word itself must be small.

        Args:
            answers: answers, [S, N, K]; rows sum to the part that does not say "none".
        """
        return answers

    def shares(self, answers: Floats, present: Floats, counts: Floats | None) -> Floats:
        """How much each silo had to say, [S, N, K] in [0, 1], for the report: here all that answered have the same.

        Args:
            answers, present, counts: the same arrays as for `pool`.

        Returns:
            sums of 1 over the silos of an image that any answered, else 0.
        """
        del counts
        return _even(answers, present)

    def learn(self, answers: AnswersSoFar) -> Floats:
        """What the answers so far show of the silos' classes, [S, K] >= 0; asked where `learns_from_answers`."""
        raise NotImplementedError(f"{self.name} does not learn from {answers}")


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearRule(AggregationRule):
    """A weighted mean of the answers."""

    @abstractmethod
    def weight(self, answers: Floats, present: Floats) -> Floats:
        """v_s of each image, of the shape of `present`, >= 0; 0 where that is."""

    def heard(self, answers: Floats) -> Floats:
        """With rows that sum to 1: the odds are in the weights, and what a silo says of its own classes is taken."""
        total = answers.sum(2, keepdims=True)
        whole: Floats = (answers / np.where(total > 0, total, 1)).astype(np.float32)
        return whole

    def pool(self, answers: Floats, present: Floats, counts: Floats | None, smoothing: float) -> Floats:
        """As above."""
        del counts, smoothing
        weight = self.weight(answers, present)
        pooled: Floats = (answers * weight).sum(0) / weight.sum(0).clip(1e-12)
        return pooled

    def shares(self, answers: Floats, present: Floats, counts: Floats | None) -> Floats:
        """As above."""
        del counts
        return _even(answers, self.weight(answers, present))


@dataclass(frozen=True, kw_only=True, eq=False)
class LogRule(AggregationRule):
    """A weighted mean of the answers' logarithms, each class with weights of its own.

    Attributes:
        prefers_confident: whether W_sc is also proportional to exp(-H(p_s)).
    """

    prefers_confident: bool = False

    def pool(self, answers: Floats, present: Floats, counts: Floats | None, smoothing: float) -> Floats:
        """As above."""
        log_p = (self.shares(answers, present, counts) * np.log(answers + smoothing)).sum(0)
        # less what smoothing added: of a single silo this is its answer; the rest is even where nothing else remains
        pooled: Floats = np.maximum(np.exp(log_p) - smoothing, 0) + _LEAST
        return pooled

    def shares(self, answers: Floats, present: Floats, counts: Floats | None) -> Floats:
        """W_sc among the silos that answered; a class that none of them has seen is shared evenly."""
        if counts is None:
            raise ConfigError(explain("aggregation rule", self.name, "needs counts", "give class counts, [S, K]"))
        weight = counts[:, None, :] * present
        if self.prefers_confident:
            weight = weight * confidence(answers)
        total = weight.sum(0, keepdims=True)
        even = present / present.sum(0).clip(1e-12)
        shares: Floats = np.where(total > 0, weight / np.where(total > 0, total, 1), even)
        return shares


def confidence(answers: Floats) -> Floats:
    """exp(-H(p_s)) of each answer, H the entropy in nats: [S, N, 1] in (0, 1]."""
    entropy = -(answers * np.log(answers + 1e-12)).sum(2, keepdims=True)
    confident: Floats = np.exp(-entropy)
    return confident


def _even(answers: Floats, weight: Floats) -> Floats:
    """`weight`, [S, N, 1] or [S, N, K], normalised over silos: [S, N, K]."""
    shares: Floats = np.broadcast_to(weight / weight.sum(0).clip(1e-12), answers.shape).astype(np.float32)
    return shares


RULES = Registry(AGGREGATION_RULES, AggregationRule)  # type: ignore[type-abstract]  # its objects are of subclasses
