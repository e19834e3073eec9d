# SPDX-License-Identifier: Apache-2.0
"""Does a generator copy training images? Both tests look at nearest neighbours in a public space of features.

Two spaces are at hand, neither of which owes anything to any data: the pixels themselves (`pixel_features`), blind to
copies that were moved or recoloured, and scattering coefficients (`scattering_features`), which hardly mind a move by a
pixel. Distances are found in blocks, so that memory grows with the number of images and not with its square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin, pairwise_distances_argmin_min

from fedcpsc.errors import AuditError, explain

__all__ = ["CopyTest", "NeighbourTest", "copy_test", "neighbour_test", "pixel_features", "scattering_features"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CopyTest:
    """Meehan, Chaudhuri & Dasgupta's C_T.

    Attributes:
        c_t: mean z-score over cells; far below 0 the generated images lie nearer to the training images than held-out
            images do, far above 0 they are farther away than real ones.
        z: the same, scaled to variance 1 where nothing is copied.
        p_value: P[Z <= z], one-sided: small where there is copying.
        by_cell: the z-score of each cell that had enough images of both kinds to count.
        worst_p_value: p-value of the lowest of these, times their number (Bonferroni): copying in one cell, which
            variety in the others may hide from the mean.
    """

    c_t: float
    z: float
    p_value: float
    by_cell: tuple[float, ...]
    worst_p_value: float


@dataclass(frozen=True)
class NeighbourTest:
    """Are generated images nearer to private images than to held-out ones?

    Attributes:
        share: share of the generated images whose nearest neighbour is private.
        expected: the share where private and held-out images are alike to the generator.
        z: (share - expected) / its standard deviation over permutations of who is private.
        p_value: probability of so large a share over those permutations, one-sided.
        neighbours: distinct images that are somebody's nearest: few of them mean hubs, and a share that says little.
    """

    share: float
    expected: float
    z: float
    p_value: float
    neighbours: int


def pixel_features(images: npt.NDArray[np.uint8]) -> Floats:
    """Pixels as they are, uint8 [n, C, H, W] -> float64 [n, C * H * W] in [0, 255]: whole numbers, so that the distance
    of an exact copy is exactly 0.
    """
    return images.reshape(len(images), -1).astype(np.float64)


def scattering_features(images: npt.NDArray[np.uint8], batch_size: int = 256) -> Floats:
    """Scattering coefficients, normalised in groups (`models.scattering`): wavelets, and no weight that was learnt.

    Args:
        images: uint8 [n, C, H, W], sides of at least 4.
        batch_size: images at once.

    Returns:
        float64 [n, C * 81 * (H // 4) * (W // 4)].
    """
    import torch  # noqa: PLC0415 - the tests themselves need none

    from fedcpsc.data.images import to_pixels  # noqa: PLC0415
    from fedcpsc.models.registry import build_classifier  # noqa: PLC0415

    channels, height, width = images.shape[1:]
    network = build_classifier("scattering", 2, (channels, height, width), seed=0)  # its head is not asked
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(images), batch_size)
        features = [network.features(to_pixels(part)).double().numpy() for part in parts]
    return np.concatenate(features)


def copy_test(
    training: Floats, held_out: Floats, generated: Floats, *, cells: int = 1, least: int = 20, seed: int = 0
) -> CopyTest:
    """Three-sample test of data copying: Meehan, Chaudhuri & Dasgupta 2020 (arXiv 2004.05675), section 3.

    In each cell of k-means over the training images, the Mann-Whitney z-score of whether generated images are farther
    from their nearest training image than held-out ones; C_T is the mean, weighted by the held-out images' share.
    Ties are corrected for. Where nothing is copied, generated and held-out distances are exchangeable and z is N(0, 1).

    Args:
        training: features of the private training images [t, d].
        held_out: features of as real images that nobody trained on [h, d].
        generated: features of the generator's images [g, d].
        cells: regions of feature space looked at one by one.
        least: images of either kind that a cell needs to count.
        seed: seed of k-means.

    Raises:
        AuditError: where no cell has enough images of both kinds, or shapes do not fit.
    """
    _check(training, held_out, generated)
    if not 1 <= cells <= len(training) or least < 1:
        raise AuditError(
            explain("cells, least", (cells, least), f"must be in [1, {len(training)}] and >= 1", "use fewer cells")
        )
    real, made = (pairwise_distances_argmin_min(x, training)[1] for x in (held_out, generated))
    if cells == 1:
        where_real, where_made = np.zeros(len(real), np.int64), np.zeros(len(made), np.int64)
    else:
        centres = KMeans(cells, n_init=4, random_state=seed).fit(training).cluster_centers_
        where_real, where_made = (pairwise_distances_argmin(x, centres) for x in (held_out, generated))
    scores: list[float] = []
    weights: list[int] = []
    for cell in range(cells):
        near_real, near_made = real[where_real == cell], made[where_made == cell]
        if min(len(near_real), len(near_made)) >= least:
            scores.append(_mann_whitney_z(near_made, near_real))
            weights.append(len(near_real))
    if not scores:
        raise AuditError(
            explain(
                "held_out, generated",
                (len(real), len(made)),
                f"no cell of {cells} holds {least} of both",
                "use more images or fewer cells",
            )
        )
    weight = np.array(weights) / sum(weights)
    c_t = float(weight @ np.array(scores))
    z = c_t / math.sqrt(float(weight @ weight))
    return CopyTest(
        c_t=c_t,
        z=z,
        p_value=float(norm.cdf(z)),
        by_cell=tuple(scores),
        worst_p_value=min(1.0, len(scores) * float(norm.cdf(min(scores)))),
    )


def neighbour_test(
    private: Floats, held_out: Floats, generated: Floats, rng: np.random.Generator, *, permutations: int = 2000
) -> NeighbourTest:
    """Share of generated images nearest to a private image, against permutations of who is private.

    Without the permutations the share misleads: a few hubs may be nearest to everything, and a fair coin decides on
    which side they lie. The test is exact where private and held-out images are exchangeable draws of one source.

    Args:
        private: features of the private training images [t, d].
        held_out: features of images of the same source that nobody trained on [h, d].
        generated: features of the generator's images [g, d].
        rng: source of the permutations.
        permutations: number of permutations, >= 99.

    Raises:
        AuditError: where shapes do not fit, or there are too few permutations.
    """
    _check(private, held_out, generated)
    if permutations < 99:
        raise AuditError(explain("permutations", permutations, "must be >= 99", "use 2000"))
    pool = np.concatenate([private, held_out])
    nearest = pairwise_distances_argmin(generated, pool)
    weight = np.bincount(nearest, minlength=len(pool)) / len(generated)
    is_private = np.arange(len(pool)) < len(private)
    share = float(weight[is_private].sum())
    null = np.array([weight[rng.permutation(len(pool))[: len(private)]].sum() for _ in range(permutations)])
    expected = len(private) / len(pool)
    return NeighbourTest(
        share=share,
        expected=expected,
        z=(share - expected) / max(float(null.std()), 1e-12),
        p_value=(1 + int((null >= share - 1e-12).sum())) / (1 + permutations),
        neighbours=int((weight > 0).sum()),
    )


def _mann_whitney_z(made: Floats, real: Floats) -> float:
    """z of U = #{made > real} + ties / 2; the variance is corrected for ties."""
    m, n = len(made), len(real)
    ranks = rankdata(np.concatenate([made, real]))
    u = float(ranks[:m].sum()) - m * (m + 1) / 2
    _, ties = np.unique(ranks, return_counts=True)
    total = m + n
    variance = m * n / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    return (u - m * n / 2) / math.sqrt(variance) if variance > 0 else 0.0


def _check(*samples: Floats) -> None:
    shapes = [sample.shape for sample in samples]
    if any(len(shape) != 2 or shape[0] < 1 or shape[1] != shapes[0][1] for shape in shapes):
        raise AuditError(explain("features", shapes, "must all be [n >= 1, d]", "use one feature map for all"))
