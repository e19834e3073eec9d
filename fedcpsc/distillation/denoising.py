# SPDX-License-Identifier: Apache-2.0
"""Answers that came with noise, read as the distributions they most probably were.

A silo says v = p + e with p its teacher's probabilities and e of known standard deviation sigma on each class. Clipping
v to [0, 1] and renormalising, as `decode_answers` does without knowing sigma, turns noise on the K - 1 small classes
into mass: at sigma 0.3 and K = 10 a teacher that is certain is read as one that is half so. The noise is public, so it
can be accounted for; this is post-processing, free of any privacy cost.

The reading is the posterior mean of each p_c, under p_c ~ Beta(1/K, (K - 1)/K), the marginal of the Dirichlet
distribution with one count in all (Perks' prior: half of the mass near the corners), tilted so that the K means sum
to 1. With b(p) the prior and phi_c(p) the likelihood of what was said of class c,

    m_c(s) = E[p] under b(p) phi_c(p) exp(s p / sigma^2),   and s solves    sum_c m_c(s) = 1.

For Gaussian noise the tilt moves v: m_c(s) = m(v_c + s) with m the posterior mean of one class. So this is the
Euclidean projection onto the simplex (Duchi et al., ICML 2008), which solves sum_c max(v_c + s, 0) = 1, with m in place
of the ramp; as sigma -> 0 the two agree. The tilt takes the sum's constraint in the mean alone, as mean-field does.

A silo that sends 8 bits has clipped v to [0, 1] before. What was cut off would have been read as next to 0 or 1 anyway,
so its values are taken as they are.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

from fedcpsc.protocol.messages import Answer, AnswerForm, decode_answers

__all__ = ["denoise", "read_answer"]

Floats = npt.NDArray[np.float64]

_CELLS = 1024  # of [0, 1], on which the prior lies
_KNOTS = 2048  # of the table over v
_HALVINGS = 40


def read_answer(answer: Answer, noise_sigma: float) -> npt.NDArray[np.float32]:
    """Dense class distributions, float32 [N, K], rows summing to 1.

    Args:
        noise_sigma: standard deviation of the noise, from the silo's description; 0 for answers without noise, which
            `decode_answers` reads, as it does labels and top-k: of them noise changes which classes are shown, and that
            cannot be undone.
    """
    if noise_sigma == 0 or answer.form is not AnswerForm.PROBABILITIES:
        return decode_answers(answer)
    values = answer.values.astype(np.float32)
    if answer.values.dtype == np.uint8:
        values /= 255
    return denoise(values, noise_sigma)


def denoise(values: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """Class distributions, float32 [N, K], rows summing to 1; see the module.

    Args:
        values: probabilities plus Gaussian noise, [N, K], of any sign.
        sigma: standard deviation of the noise on each, > 0.
    """
    said = values.astype(np.float64)
    knots, means = _posterior_mean(sigma, said.shape[1])
    # at `low` every class is next to 0, at `high` next to 1
    low, high = knots[0] - said.max(1, keepdims=True), knots[-1] - said.min(1, keepdims=True)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = np.interp(said + middle, knots, means).sum(1, keepdims=True) >= 1
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    mean = np.interp(said + high, knots, means)
    dense: npt.NDArray[np.float32] = (mean / mean.sum(1, keepdims=True)).astype(np.float32)
    return dense


@lru_cache(maxsize=32)
def _posterior_mean(sigma: float, classes: int) -> tuple[Floats, Floats]:
    """E[p] of one class, without a tilt, at knots over what was said of it."""
    a, b = 1 / classes, 1 - 1 / classes
    edges = np.linspace(0, 1, _CELLS + 1)
    mass = np.diff(betainc(a, b, edges))
    atoms = a * np.diff(betainc(a + 1, b, edges)) / mass  # the mean of p within each cell
    reach = 1 + 10 * sigma
    knots = np.linspace(-reach, 1 + reach, _KNOTS)
    log_weight = np.log(mass) - (knots[:, None] - atoms) ** 2 / (2 * sigma**2)
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    means: Floats = (weight * atoms).sum(1) / weight.sum(1)
    return knots, means
