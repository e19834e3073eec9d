# SPDX-License-Identifier: Apache-2.0
"""Many silos' answers to one soft target, by one of the rules of `fedcpsc.aggregation`.

Where silos differ in answer form or noise, every rule multiplies a silo's weight by w_s (`information`). Where silos
are judged by their answers (`aggregation.reputation`), answers are tempered, and every rule multiplies a silo's weight
by its reputation, and on each class by the support that it has there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.aggregation.rule import AggregationRule, Floats
from fedcpsc.distillation.claims import MOST_COUNT
from fedcpsc.distillation.information import Information
from fedcpsc.errors import ConfigError, FederationError, explain
from fedcpsc.label_sets import LabelSets
from fedcpsc.protocol.messages import ClassReport

__all__ = ["aggregate", "class_counts", "silo_shares"]


def class_counts(
    rule: AggregationRule, silos: Sequence[str], reports: Mapping[str, ClassReport | None], label_sets: LabelSets
) -> Floats | None:
    """n_sc from class reports, float32 [S, K], 0 of classes that a silo does not know; None where the rule needs none.

    Raises:
        FederationError: where a silo shares none, or reports another number of classes, or numbers that are none.
    """
    if not rule.needs_class_reports:
        return None
    silent = [silo for silo in silos if reports.get(silo) is None]
    if silent:
        remedy = "ask their owners for policy.share_class_counts, or use aggregation.rule=answer_peak_log"
        raise FederationError(explain("aggregation.rule", rule.name, f"{silent} share no class counts", remedy))
    counts = np.zeros((len(silos), label_sets.classes), np.float32)
    for index, silo in enumerate(silos):
        report, classes = reports[silo], len(label_sets.places[index])
        own = () if report is None else report.counts
        if len(own) != classes:
            constraint = f"must be {classes} per silo: {silo} has so many classes"
            raise FederationError(explain("class counts", len(own), constraint, "check the silo's manifest"))
        if not all(math.isfinite(count) and 0 <= count <= MOST_COUNT for count in own):
            constraint = f"of {silo} must be numbers in [0, {MOST_COUNT:g}]"
            raise FederationError(explain("class counts", own, constraint, "check the silo's manifest"))
        counts[index] = label_sets.of_counts(index, own)
    return counts


def aggregate(
    answers: Floats,
    given: npt.NDArray[np.bool_],
    rule: AggregationRule,
    *,
    counts: Floats | None = None,
    information: Information | None = None,
    weight: Floats | None = None,
    standing: Standing | None = None,
    place: float | None = None,
    smoothing: float = 1e-4,
) -> Floats:
    """One soft target per image.

    Args:
        answers: answers, float32 [S, N, K]; rows sum to 1 where given, or to less by what says "none of these".
        given: who answered what, bool [S, N].
        rule: rule that pools them.
        counts: what is known of the silos' classes, [S, K] >= 0; None for rules that need no such thing.
        information: how much unlike forms and noise leave of each silo's answers; None where all answer alike.
        weight: how much each silo counts for each image by its own word (`LabelSets.weights`), [S, N] in (0, 1]; None
            where no silo can say that an image is none of its classes.
        standing: how far each silo may be believed; None where that is not judged.
        place: where the images come among those answered so far, in [0, 1); None for other images.
        smoothing: number added before logarithms, > 0.

    Returns:
        float32 [N, K]; rows sum to 1 where any silo answered, else they are 0.

    Raises:
        ConfigError: the rule, one of the user's own, gave something that is no target.
    """
    answers, present = _heard(answers, given, rule, information, weight, standing, place)
    target = rule.pool(answers, present, counts, smoothing)
    if target.shape != answers.shape[1:] or not np.isfinite(target).all() or (target < 0).any():
        constraint = f"must give finite numbers >= 0 of shape {answers.shape[1:]}, gave shape {target.shape}"
        raise ConfigError(explain("aggregation rule", rule.name, constraint, "fix its pool()"))
    target = target / target.sum(1, keepdims=True).clip(1e-12)
    answered = np.asarray(given.any(axis=0))
    dense: Floats = (target * answered[:, None]).astype(np.float32)
    return dense


def silo_shares(
    answers: Floats,
    given: npt.NDArray[np.bool_],
    rule: AggregationRule,
    *,
    counts: Floats | None = None,
    information: Information | None = None,
    weight: Floats | None = None,
    standing: Standing | None = None,
    place: float | None = None,
) -> Floats:
    """How much each silo had to say: float32 [S, N, K], in [0, 1], 1 over the silos of an image that any answered.

    Args:
        answers, given, rule, counts, information, weight, standing, place: arguments of `aggregate`.
    """
    answers, present = _heard(answers, given, rule, information, weight, standing, place)
    return rule.shares(answers, present, counts)


def _heard(
    answers: Floats,
    given: npt.NDArray[np.bool_],
    rule: AggregationRule,
    information: Information | None,
    weight: Floats | None,
    standing: Standing | None,
    place: float | None,
) -> tuple[Floats, Floats]:
    """Answers as they are to be read, and how much each silo counts: [S, N, 1], or [S, N, K]; 0 where it gave none."""
    present = given[:, :, None].astype(np.float32)
    if weight is not None:
        present *= weight[:, :, None]
        answers = rule.heard(answers)
    if information is not None:
        answers, present = information.read(answers), present * information.weight[:, None, None]
    if standing is not None:
        trusted = standing.weights if place is None else standing.weight(place)
        answers = standing.temper(answers)
        present = present * trusted[:, None, None] * standing.support[:, None, :]
    return answers, present
