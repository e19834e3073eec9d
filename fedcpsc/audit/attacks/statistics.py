# SPDX-License-Identifier: Apache-2.0
"""The statistics that attacks share.

Attacks see answers alone: probabilities, or labels. *Shadows* are models trained as the target was, each on a random
half of the images, so that for every image some were trained with it and some without.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import AuditError, explain

__all__ = [
    "LEAST",
    "checked",
    "confidence_logit",
    "gaussians",
    "log_normal",
    "mean_over",
    "of_true_class",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEAST = 1e-45  # probability at which logarithms are cut: the least that a float32 holds
_LEAST_STD = 1e-12


def confidence_logit(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """phi = log p_y - log(sum of the others), which for a model's confidence is nearly Gaussian.

    Carlini et al. 2022 (arXiv 2112.03570), section V: the sum rather than 1 - p_y keeps precision where p_y is near 1.

    Args:
        probabilities: [..., C], rows in [0, 1].
        labels: integers [...] in [0, C).

    Returns:
        float64 [...], within log(1e-45) of either end where a probability is 0.
    """
    table, own = np.asarray(probabilities, np.float64), of_true_class(probabilities, labels)
    others = (table * (np.arange(table.shape[-1]) != np.asarray(labels)[..., None])).sum(-1)
    logit: Floats = np.log(own + LEAST) - np.log(others + LEAST)
    return logit


def of_true_class(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """The probability that is given to the true class.

    Args:
        probabilities: table of probabilities [..., C], in [0, 1].
        labels: integers [...] in [0, C).

    Returns:
        float64 [...].

    Raises:
        AuditError: where shapes do not fit, or a label is out of range.
    """
    table, index = np.asarray(probabilities, np.float64), np.asarray(labels)
    if table.ndim < 1 or table.shape[:-1] != index.shape:
        raise AuditError(
            explain("labels", index.shape, f"must be one for each of {table.shape[:-1]}", "give a label an answer")
        )
    if index.size and not 0 <= index.min() <= index.max() < table.shape[-1]:
        raise AuditError(
            explain("labels", (int(index.min()), int(index.max())), f"must be in [0, {table.shape[-1]})", "fix them")
        )
    own: Floats = np.take_along_axis(table, index[..., None], -1)[..., 0]
    return own


def checked(target: npt.ArrayLike, shadows: npt.ArrayLike, member: npt.ArrayLike) -> tuple[Floats, Floats, Bools]:
    """The arguments of an attack with shadows as arrays.

    Args:
        target: one number for each image [n].
        shadows: the same number by each shadow [S, n].
        member: whether shadow s was trained with image i [S, n].

    Raises:
        AuditError: where shapes do not fit, or a number is not finite.
    """
    own, table, inside = np.asarray(target, np.float64), np.asarray(shadows, np.float64), np.asarray(member, np.bool_)
    if own.ndim != 1 or table.ndim != 2 or table.shape[1] != len(own) or inside.shape != table.shape:
        raise AuditError(
            explain(
                "target, shadows, member",
                (own.shape, table.shape, inside.shape),
                "must be [n], [S, n], [S, n]",
                "one value for each model and image",
            )
        )
    if not (np.isfinite(own).all() and np.isfinite(table).all()):
        raise AuditError(explain("target, shadows", "NaN or inf", "must be finite", "fix the models"))
    return own, table, inside


def mean_over(table: Floats, chosen: Bools, least: int = 1) -> Floats:
    """The mean over the chosen shadows of each image [n].

    Args:
        table: one number for each shadow and image [S, n].
        chosen: shadows that count for each image [S, n].
        least: number of shadows that each image needs, >= 1.

    Raises:
        AuditError: where an image has fewer.
    """
    counts = chosen.sum(0)
    if counts.size and counts.min() < least:
        raise AuditError(
            explain(
                "shadows",
                len(table),
                f"an image has only {int(counts.min())} shadows of a kind of which {least} are needed",
                "train more shadows, each on a random half",
            )
        )
    mean: Floats = np.where(chosen, table, 0.0).sum(0) / counts
    return mean


def gaussians(table: Floats, chosen: Bools, least: int, fixed_variance: bool) -> tuple[Floats, Floats]:
    """The mean and the standard deviation for each image [n] over its chosen shadows.

    Args:
        table: one number for each shadow and image [S, n].
        chosen: shadows that count for each image [S, n].
        least: number of shadows that each image needs, >= 1.
        fixed_variance: whether all images share one variance.

    Raises:
        AuditError: where an image has too few shadows.
    """
    mean = mean_over(table, chosen, least)
    squares, counts = np.where(chosen, (table - mean) ** 2, 0.0).sum(0), chosen.sum(0)
    if fixed_variance:  # pooled; each image's mean costs a degree of freedom
        freedom = int((counts - 1).sum())
        if freedom < 1:
            raise AuditError(explain("shadows", len(table), "are too few for a variance", "train 4 or more"))
        variance = np.full(len(mean), squares.sum() / freedom)
    else:
        variance = squares / (counts - 1)
    std: Floats = np.maximum(np.sqrt(variance), _LEAST_STD)
    return mean, std


def log_normal(x: Floats, mean: Floats, std: Floats) -> Floats:
    """The logarithm of the normal density, up to a constant."""
    density: Floats = -0.5 * ((x - mean) / std) ** 2 - np.log(std)
    return density
