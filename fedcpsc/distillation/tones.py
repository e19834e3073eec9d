# SPDX-License-Identifier: Apache-2.0
"""How light the query images are to be, found in the silos' answers to the first of them.

Images that are lighter or darker than a teacher's own collapse into few classes, or leave it unsure: little can be
learnt of either. So the first images are of any lightness, and the rest of that of which the answers tell most. What an
answer tells is measured as the mutual information of image and class, the entropy of the mean answer less the mean
entropy of the answers; the logarithm of the inception score (Salimans et al., arXiv 1606.03498) with the silos in place
of the inception network. Public constants of the domain (`synthesis.moments`) are where the search begins, and stay
unless the answers speak against them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedcpsc.config import SynthesisConfig
from fedcpsc.priors.tones import SPREAD, Tones
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.origins import GENERATOR, PUBLIC
from fedcpsc.runs.round_plan import RoundPlan

__all__ = ["GRID", "find_tones", "first_tones", "information", "most_telling", "tones_in_words", "tones_of_round"]

Floats = npt.NDArray[np.float32]

GRID = np.linspace(-0.9, 0.9, 19)
"""Lightness that is looked at: means of an image's pixels."""

_FIRST = 0.25  # share of the first images that are of any lightness where the domain's is given
_IMAGES = 200  # images that the search goes by at least
_NEAR, _ENOUGH = 0.15, 10  # standard deviation of the window about a lightness; images in it, at least
_SHARPNESS = 4  # lightness counts by this power of what the answers tell of it
_GOOD = 0.75  # given constants stay where answers tell this share of the most


def first_tones(config: SynthesisConfig) -> Tones:
    """Tones before anything is known: about the public constants, or any."""
    return Tones(0.0, SPREAD, anywhere=1.0) if config.moments is None else Tones(config.moments[0])


def tones_of_round(plan: RoundPlan, round_index: int, found: Tones | None) -> Tones | None:
    """Tones of a round's query images; None leaves those of the priors as they are (`synthesis.find_tones` is off).

    Args:
        plan: rounds of the run, with its configuration.
        round_index: number of the round, from 0.
        found: result of `find_tones` on the answers so far.
    """
    config, given = plan.config.synthesis, first_tones(plan.config.synthesis)
    if not config.find_tones:
        return None if config.moments is None else given
    if found is not None:
        return found
    looking = config.moments is not None and round_index < config.warmup_share * plan.rounds
    return replace(given, anywhere=_FIRST) if looking else given


def find_tones(plan: RoundPlan, bank: AnswerBank, seen: int) -> Tones | None:
    """Tones that the silos' answers speak for; None while there are too few answers, and where none are to be found.

    They are looked for among images that priors drew before the committee chose among candidates, for of those that it
    is unsure of the answers tell less. Where that is fewer than 200 images, some that it chose are looked at as well.

    Args:
        plan: rounds of the run, with its configuration.
        bank: bank that holds the answers so far.
        seen: number of the first round whose answers may not be used yet.
    """
    config = plan.config.synthesis
    if not config.find_tones:
        return None
    rows = bank.answered_rows(range(seen))
    unchosen = plan.images_before(math.ceil(config.warmup_share * plan.rounds))
    rows = rows[rows < max(unchosen, _IMAGES)]
    rows = rows[(bank.origins[rows] != GENERATOR) & (bank.origins[rows] != PUBLIC)]
    if len(rows) < _IMAGES / 2:
        return None
    means = bank.images[rows].reshape(len(rows), -1).mean(1) / 127.5 - 1
    told = information(means, np.asarray(bank.targets[rows]))
    found = most_telling(told)
    if found is not None and config.moments is not None:
        at_given = np.interp(config.moments[0], GRID[np.isfinite(told)], told[np.isfinite(told)])
        if at_given >= _GOOD * np.nanmax(told):
            return first_tones(config)
    return found


def most_telling(told: npt.NDArray[np.float64]) -> Tones | None:
    """Tones about the lightness of which answers tell most; None where less than three are known, or nothing was told.

    Args:
        told: result of `information`.
    """
    known = np.isfinite(told)
    if known.sum() < 3 or not (most := told[known].max()) > 0:
        return None
    weights = (told[known] / most) ** _SHARPNESS
    mean = float(np.average(GRID[known], weights=weights))
    spread = math.sqrt(np.average((GRID[known] - mean) ** 2, weights=weights))
    return Tones(round(mean, 3), round(min(1.0, max(SPREAD, spread)), 3))


def tones_in_words(config: SynthesisConfig, found: Tones) -> str:
    """What the search found, a line for people."""
    said = f"the answers tell most of images whose mean is about {found.mean:.2f} (scatter {found.spread:.2f})"
    if config.moments is None:
        return f"{said}: from here on they are asked about"
    if found == first_tones(config):
        return f"synthesis.moments fits: the answers do not speak against a mean of {config.moments[0]:.2f}"
    return f"{said}: from here on they are asked about, and not those about {config.moments[0]:.2f} (synthesis.moments)"


def information(means: npt.NDArray[np.float64], answers: Floats) -> npt.NDArray[np.float64]:
    """What answers tell about images of a lightness: mutual information of image and class in nats, >= 0.

    Args:
        means: mean of each image's pixels, [n] in [-1, 1].
        answers: class probabilities, [n, K]; rows that sum to less than 1 are scaled.

    Returns:
        float64 [19], for lightness from -0.9 to 0.9; NaN where too few images are near.
    """
    shares = np.clip(answers.astype(np.float64), 0, None)
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-9)
    near = np.exp(-((means[None, :] - GRID[:, None]) ** 2) / (2 * _NEAR**2))  # [19, n]
    total = near.sum(1)
    near /= np.maximum(total, 1e-300)[:, None]
    told = np.maximum(_entropy(near @ shares) - near @ _entropy(shares), 0)
    return np.where(total >= _ENOUGH, told, np.nan)


def _entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    entropy: npt.NDArray[np.float64] = -(shares * np.log(np.maximum(shares, 1e-12))).sum(-1)
    return entropy
