"""Membership inference: a score for each image, higher where it looks more like a member.

The attacks see answers alone: probabilities, or labels. *Shadows* are models trained as the target was, each on a
random half of the images, so that for every image some were trained with it and some without. What a score is worth,
`roc` and `guesses_from` say.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.roc import Roc, guesses_from, roc
from fedcpsc.errors import AuditError, explain

__all__ = [
    "Roc",
    "confidence_logit",
    "guesses_from",
    "label_only_scores",
    "lira_offline",
    "lira_online",
    "loss_scores",
    "rmia",
    "roc",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_LEAST = 1e-45  # probability at which logarithms are cut: the least that a float32 holds
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
    table, own = _own(probabilities, labels)
    others = (table * (np.arange(table.shape[-1]) != np.asarray(labels)[..., None])).sum(-1)
    logit: Floats = np.log(own + _LEAST) - np.log(others + _LEAST)
    return logit


def loss_scores(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """log p_y, the negative cross-entropy: members are better fitted (Yeom et al. 2018, arXiv 1709.01604).

    Args:
        probabilities: [n, C], rows in [0, 1].
        labels: integers [n] in [0, C).

    Returns:
        float64 [n], at least log(1e-45).
    """
    scores: Floats = np.log(_own(probabilities, labels)[1] + _LEAST)
    return scores


def lira_online(
    target: npt.ArrayLike, shadows: npt.ArrayLike, member: npt.ArrayLike, *, fixed_variance: bool = True
) -> Floats:
    """log N(phi; mean_in, var_in) - log N(phi; mean_out, var_out): the likelihood-ratio attack.

    Carlini et al. 2022 (arXiv 2112.03570), algorithm 1.

    Args:
        target: phi of the target [n], see `confidence_logit`.
        shadows: phi of the shadows [S, n].
        member: whether shadow s was trained with image i, [S, n]; each image needs shadows of both kinds.
        fixed_variance: one variance of each kind for all images, about each image's own mean: better below 64 shadows.
            Otherwise each image's own, of two shadows of each kind or more.

    Returns:
        float64 [n].

    Raises:
        AuditError: where an image has too few shadows of a kind, or shapes do not fit.
    """
    phi, table, inside = _checked(target, shadows, member)
    least = 1 if fixed_variance else 2
    with_, without = (_gaussians(table, kind, least, fixed_variance) for kind in (inside, ~inside))
    return _log_normal(phi, *with_) - _log_normal(phi, *without)


def lira_offline(
    target: npt.ArrayLike, shadows: npt.ArrayLike, member: npt.ArrayLike, *, fixed_variance: bool = True
) -> Floats:
    """(phi - mean_out) / std_out: how far the target is more confident than models that never saw the image.

    Carlini et al. 2022 (arXiv 2112.03570), equation 4: its score P[Z <= phi] is Phi of this one, in the same
    order.

    Args:
        target: as `lira_online`.
        shadows: as `lira_online`.
        member: as `lira_online`; shadows trained with an image are not looked at.
        fixed_variance: as `lira_online`.

    Returns:
        float64 [n].

    Raises:
        AuditError: where an image has too few shadows without it, or shapes do not fit.
    """
    phi, table, inside = _checked(target, shadows, member)
    mean, std = _gaussians(table, ~inside, 1 if fixed_variance else 2, fixed_variance)
    score: Floats = (phi - mean) / std
    return score


def rmia(
    target: npt.ArrayLike,
    shadows: npt.ArrayLike,
    member: npt.ArrayLike,
    population_target: npt.ArrayLike,
    population_shadows: npt.ArrayLike,
    *,
    gamma: float = 1.0,
    offline_a: float | None = None,
) -> Floats:
    """P_z[(p(x|target) / p(x)) / (p(z|target) / p(z)) >= gamma]: x against many images z that nobody trained on.

    Zarifzadeh, Liu & Shokri 2024 (arXiv 2312.03262). All values are probabilities of the true class.
    p(x) is the mean of the shadows, those with and those without x weighing alike; offline it is
    ((1 + a) mean_out + 1 - a) / 2 from the shadows without x alone, and the same for z.

    Args:
        target: of the target [n], in [0, 1].
        shadows: of the shadows [S, n].
        member: whether shadow s was trained with image i, [S, n].
        population_target: of the target, for images in no training set [p].
        population_shadows: of the shadows for the same [S, p].
        gamma: > 0; how much likelier x must be.
        offline_a: None online; in [0, 1] offline (the paper: 0.3 to 0.6, by data set).

    Returns:
        float64 [n], multiples of 1 / p in [0, 1].

    Raises:
        AuditError: where an image has no shadow of a kind that is needed, or shapes or values do not fit.
    """
    own, table, inside = _checked(target, shadows, member)
    their, theirs, nowhere = _checked(
        population_target, population_shadows, np.zeros(np.shape(population_shadows), np.bool_)
    )
    if len(table) != len(theirs):
        raise AuditError(
            explain("population_shadows", theirs.shape, f"must have {len(table)} rows", "ask the same shadows")
        )
    if gamma <= 0 or (offline_a is not None and not 0 <= offline_a <= 1) or not len(their):
        raise AuditError(
            explain(
                "gamma, offline_a, population",
                (gamma, offline_a, len(their)),
                "must be > 0, in [0, 1], of at least one image",
                "use gamma=1 and offline_a=0.3",
            )
        )
    usual = _mean(table, ~inside)
    usual_z = _mean(theirs, ~nowhere)
    if offline_a is None:
        usual = (usual + _mean(table, inside)) / 2
    else:
        usual, usual_z = (((1 + offline_a) * mean + 1 - offline_a) / 2 for mean in (usual, usual_z))
    ratios_z = np.sort(their / np.maximum(usual_z, _LEAST))
    share: Floats = np.searchsorted(ratios_z * gamma, own / np.maximum(usual, _LEAST), side="right") / len(ratios_z)
    return share


def label_only_scores(labels_seen: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Share of an image's public perturbations (shifts, noise) that are still given its true label.

    Choquette-Choo et al. 2021 (arXiv 2007.14321): members lie farther from the decision boundary.

    Args:
        labels_seen: the label answered for each of V perturbed views, integers [V, n].
        labels: true labels, integers [n].

    Returns:
        float64 [n] in [0, 1].

    Raises:
        AuditError: where there is no view, or shapes do not fit.
    """
    seen, own = np.asarray(labels_seen), np.asarray(labels)
    if seen.ndim != 2 or seen.shape[1:] != own.shape or not len(seen):
        raise AuditError(
            explain("labels_seen", seen.shape, f"must be [V >= 1, {len(own)}]", "ask about one view or more")
        )
    share: Floats = (seen == own).mean(0)
    return share


def _own(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    table, index = np.asarray(probabilities, np.float64), np.asarray(labels)
    if table.ndim < 1 or table.shape[:-1] != index.shape:
        raise AuditError(
            explain("labels", index.shape, f"must be one for each of {table.shape[:-1]}", "give a label an answer")
        )
    if index.size and not 0 <= index.min() <= index.max() < table.shape[-1]:
        raise AuditError(
            explain("labels", (int(index.min()), int(index.max())), f"must be in [0, {table.shape[-1]})", "mend them")
        )
    return table, np.take_along_axis(table, index[..., None], -1)[..., 0]


def _checked(target: npt.ArrayLike, shadows: npt.ArrayLike, member: npt.ArrayLike) -> tuple[Floats, Floats, Bools]:
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
        raise AuditError(explain("target, shadows", "NaN or inf", "must be finite", "mend the models"))
    return own, table, inside


def _mean(table: Floats, chosen: Bools, least: int = 1) -> Floats:
    """Mean over the chosen shadows of each image [n]."""
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


def _gaussians(table: Floats, chosen: Bools, least: int, fixed_variance: bool) -> tuple[Floats, Floats]:
    """Mean and standard deviation for each image [n] over its chosen shadows."""
    mean = _mean(table, chosen, least)
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


def _log_normal(x: Floats, mean: Floats, std: Floats) -> Floats:
    density: Floats = -0.5 * ((x - mean) / std) ** 2 - np.log(std)
    return density
