"""Many silos' answers to one soft target.

Rules, over silos s that answered image i with distribution p_s:

- `uniform`: mean of p_s.
- `entropy`: mean of p_s weighted by exp(-H(p_s)): the surer, the louder.
- `class_prior_log`: `log p_c = sum_s W_sc log(p_sc + smoothing) + const` with `W_sc = n_sc / sum_t n_tc`, n the silos'
  class reports: for each class, those who have seen it speak. Needs class reports from every silo (opt-in).
- `answer_prior_log`: the same with `W_sc` proportional to `m_sc exp(-H(p_s))`, m_s the mean of all that silo s has
  answered so far: a silo that has hardly seen a class hardly ever names it. Needs nothing but the answers.
- `answer_peak_log`: the same with m_sc the mean of the highest 2 % of silo s's answers on class c: how sure it gets of
  the class at its surest. A silo that has never seen a class never does; and one that takes every strange image for the
  class, which the mean rewards, gains nothing by it.

Where silos differ in answer form or noise, every rule multiplies a silo's weight by w_s (`information`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedcpsc.distillation.information import Information
from fedcpsc.errors import FederationError, explain
from fedcpsc.protocol.messages import ClassReport

__all__ = ["FROM_ANSWERS", "Rule", "aggregate", "class_weights", "silo_shares"]

Rule = Literal["uniform", "entropy", "class_prior_log", "answer_prior_log", "answer_peak_log"]
FROM_ANSWERS = ("answer_prior_log", "answer_peak_log")
"""Rules whose weights come from the answers themselves."""
_IN_LOG_SPACE = ("class_prior_log", *FROM_ANSWERS)
Floats = npt.NDArray[np.float32]


def class_weights(silos: Sequence[str], reports: Mapping[str, ClassReport | None], classes: int) -> Floats:
    """n_sc from class reports, float32 [S, K].

    Raises:
        FederationError: where a silo shares none.
    """
    silent = [silo for silo in silos if reports.get(silo) is None]
    if silent:
        remedy = "ask their owners for policy.share_class_counts, or use aggregation.rule=answer_peak_log"
        raise FederationError(explain("aggregation.rule", "class_prior_log", f"{silent} share no class counts", remedy))
    counts = np.stack([np.asarray(report.counts, np.float32) for s in silos if (report := reports[s]) is not None])
    if counts.shape != (len(silos), classes):
        raise FederationError(
            explain("class counts", counts.shape, f"must be {classes} per silo", "check the silos' manifests")
        )
    return counts


def aggregate(
    answers: Floats,
    given: npt.NDArray[np.bool_],
    rule: Rule,
    *,
    counts: Floats | None = None,
    information: Information | None = None,
    smoothing: float = 1e-4,
) -> Floats:
    """One soft target per image.

    Args:
        answers: float32 [S, N, K], rows summing to 1 where given.
        given: bool [S, N], who answered what.
        rule: see the module.
        counts: [S, K] >= 0, for the rules in log space: n, or m.
        information: what each silo's answers are worth, where the silos answer in unlike forms, or under unlike noise.
        smoothing: added before logarithms, > 0.

    Returns:
        float32 [N, K]; rows sum to 1 where any silo answered, else they are 0.
    """
    answers, present = _heard(answers, given, information)
    if rule in _IN_LOG_SPACE:
        log_p = (_class_shares(answers, present, rule, counts) * np.log(answers + smoothing)).sum(0)
        log_p -= log_p.max(1, keepdims=True)
        target = np.exp(log_p)
    else:
        if rule == "entropy":
            present = present * _sureness(answers)
        target = (answers * present).sum(0)
    target = target / target.sum(1, keepdims=True).clip(1e-12)
    answered = np.asarray(given.any(axis=0))
    dense: Floats = (target * answered[:, None]).astype(np.float32)
    return dense


def silo_shares(
    answers: Floats,
    given: npt.NDArray[np.bool_],
    rule: Rule,
    *,
    counts: Floats | None = None,
    information: Information | None = None,
) -> Floats:
    """How much each silo had to say: float32 [S, N, K], in [0, 1], 1 over the silos of an image that any answered.

    Args:
        answers, given, rule, counts, information: arguments of `aggregate`.
    """
    answers, present = _heard(answers, given, information)
    if rule in _IN_LOG_SPACE:
        return _class_shares(answers, present, rule, counts)
    weight = present * _sureness(answers) if rule == "entropy" else present
    shares: Floats = np.broadcast_to(weight / weight.sum(0).clip(1e-12), answers.shape).astype(np.float32)
    return shares


def _heard(answers: Floats, given: npt.NDArray[np.bool_], information: Information | None) -> tuple[Floats, Floats]:
    """Answers as they are to be read, and how loud each silo is, [S, N, 1]: 0 where it gave none."""
    present = given[:, :, None].astype(np.float32)
    if information is None:
        return answers, present
    return information.read(answers), present * information.weight[:, None, None]


def _class_shares(answers: Floats, present: Floats, rule: Rule, counts: Floats | None) -> Floats:
    """W_sc among the silos that answered; a class that none of them has seen is shared evenly."""
    if counts is None:
        raise ValueError(f"{rule} needs counts")
    weight = counts[:, None, :] * present
    if rule in FROM_ANSWERS:
        weight = weight * _sureness(answers)
    total = weight.sum(0, keepdims=True)
    shares: Floats = np.where(total > 0, weight / np.where(total > 0, total, 1), present / present.sum(0).clip(1e-12))
    return shares


def _sureness(answers: Floats) -> Floats:
    entropy = -(answers * np.log(answers + 1e-12)).sum(2, keepdims=True)
    sureness: Floats = np.exp(-entropy)
    return sureness
