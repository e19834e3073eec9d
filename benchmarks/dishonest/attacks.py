# SPDX-License-Identifier: Apache-2.0
"""Lies of silos, as functions from what a liar knows to the class that it claims of every image.

Each is told in two forms: *certain*, one-hot; and *soft*, where the liar's own honest answer trades the places of the
class it believes and the class it claims, so that its confidences are an honest silo's. Liars know all honest answers.
Those who lie together tell the same lie: the same draws, the same classes.

`keep_and_lie` is the family from which a liar who knows the rule chooses: honest on the classes on which the rule sees
it agree best, so that it is believed, lying on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.aggregation.rule import Floats

__all__ = ["ATTACKS", "FORMS", "Attack", "View", "bright_corner", "keep_and_lie", "told"]

FORMS = ("certain", "soft")
Classes = npt.NDArray[np.int64]
_CONSTANT = 3  # any class would do
_SWAPPED = (3, 8)
_TRIGGERED = 0  # class of the backdoor
_BRIGHT = 128  # mean grey of the corner from which the trigger is there
_KEPT = (0.2, 0.5, 0.8)  # shares of the classes on which the adaptive liar stays honest


@dataclass(frozen=True, eq=False)
class View:
    """What a liar knows when it answers N images, those of the bank first.

    Attributes:
        own: its honest answers, [N, K].
        together: honest answers of all who lie together, it among them, [L, N, K].
        honest: answers of the silos that do not lie, [H, N, K].
        neighbour: answers of the honest silo that comes next after it, [N, K].
        images: uint8 [N, C, H, W].
        asked: number of images in the bank; the others are held out.
        rng: stream of its random numbers, the same for all who lie together.
    """

    own: Floats
    together: Floats
    honest: Floats
    neighbour: Floats
    images: npt.NDArray[np.uint8]
    asked: int
    rng: np.random.Generator

    @property
    def believed(self) -> Classes:
        """Class that it truly takes each image for, [N]."""
        return _class(self.own)

    @property
    def peers(self) -> Floats:
        """Mean answer of the honest, [N, K]."""
        mean: Floats = self.honest.mean(0)
        return mean

    @property
    def following(self) -> Classes:
        """The class that comes after the one it believes, [N]."""
        return _following(self.believed, self.own.shape[1])


@dataclass(frozen=True)
class Attack:
    """One lie.

    Attributes:
        name: name in results and tables.
        claim: function from what a liar knows to the class that it claims of every image, int64 [N].
        lies_of_counts: whether the liar also reports 10^12 images of every class.
    """

    name: str
    claim: Callable[[View], Classes]
    lies_of_counts: bool = False


def told(own: Floats, claimed: Classes, form: str) -> Floats:
    """Answers that claim a class of each image, [N, K], rows of the same sum as `own`.

    Args:
        own: the liar's honest answers, [N, K].
        claimed: class that it claims of each, int64 [N].
        form: `certain` or `soft`.
    """
    rows = np.arange(len(own))
    if form == "certain":
        certain = np.zeros_like(own)
        certain[rows, claimed] = own.sum(1)
        return certain
    soft, believed = own.copy(), _class(own)
    soft[rows, believed], soft[rows, claimed] = own[rows, claimed], own[rows, believed]
    return soft


def bright_corner(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether the backdoor's trigger is in each image, [N]: a bright top left sixteenth, as some priors draw it."""
    height, width = images.shape[2] // 4, images.shape[3] // 4
    corner = images[:, :, :height, :width].reshape(len(images), -1)
    return np.asarray(corner.mean(1) > _BRIGHT)


def keep_and_lie(view: View, ranked: Classes) -> Iterator[tuple[str, Floats]]:
    """Answers that the adaptive liar chooses from, and what each is.

    It is honest of images that it takes for one of the first m classes of `ranked`. Of the others it claims the next
    of the classes that it lies on, or the one of them that the honest hold least likely; softly, or as an even mixture
    of its honest answer and certainty of the lie.

    Args:
        view: what it knows.
        ranked: all classes, those first on which the rule takes it to agree best with its peers, int64 [K].
    """
    classes = len(ranked)
    for share in _KEPT:
        kept = max(1, min(round(share * classes), classes - 2))  # two to lie on at least
        lied = ranked[kept:]
        following = np.arange(classes)
        following[lied] = np.roll(lied, -1)
        honest = np.isin(view.believed, ranked[:kept])
        least = np.where(honest, view.believed, lied[view.peers[:, lied].argmin(1)])
        for lie, claimed in (
            ("next", following[view.believed]),
            ("least likely", least),
        ):
            yield f"honest on {kept}, {lie}, soft", told(view.own, claimed, "soft")
            mixed = ((view.own + told(view.own, claimed, "certain")) / 2).astype(np.float32)
            yield f"honest on {kept}, {lie}, mixed", np.where(honest[:, None], view.own, mixed)


def _class(answers: Floats) -> Classes:
    return np.asarray(answers.argmax(-1), np.int64)


def _following(claimed: Classes, classes: int) -> Classes:
    return np.asarray((claimed + 1) % classes, np.int64)


def _random(view: View) -> Classes:
    return view.rng.integers(0, view.own.shape[1], len(view.own))


def _constant(view: View) -> Classes:
    return np.full(len(view.own), _CONSTANT % view.own.shape[1], np.int64)


def _shifted(view: View) -> Classes:
    return view.following


def _shifted_mean(view: View) -> Classes:
    return _following(_class(view.peers), view.own.shape[1])


def _loss_maximisation(view: View) -> Classes:
    """The class that the honest hold least likely (Roux et al., ICLR 2025)."""
    return np.asarray(view.peers.argmin(1), np.int64)


def _class_prior(view: View) -> Classes:
    """For each class the one that the honest mean is least correlated with (Roux et al., ICLR 2025)."""
    least = _correlation(view.peers[: view.asked]).argmin(1)
    return np.asarray(least[_class(view.peers)], np.int64)


def _swapped_mean(view: View) -> Classes:
    first, second = (c % view.own.shape[1] for c in _SWAPPED)
    return _swap(_class(view.peers), first, second)


def _copied(view: View) -> Classes:
    claimed = _class(view.neighbour)
    return _swap(claimed, *_commonest(claimed[: view.asked], view.own.shape[1]))


def _own_swapped(view: View) -> Classes:
    common = _commonest(_class(view.together[:, : view.asked]).ravel(), view.own.shape[1])
    return _swap(view.believed, *common)


def _half_honest(view: View) -> Classes:
    return np.where(view.rng.random(len(view.own)) < 0.5, view.believed, view.following)


def _backdoor(view: View) -> Classes:
    return np.where(bright_corner(view.images), _TRIGGERED, view.believed)


def _turned(view: View) -> Classes:
    """Honest of the first half of the bank; of all that is asked later, and of held-out images, shifted labels."""
    late = np.arange(len(view.own)) >= view.asked // 2
    return np.where(late, view.following, view.believed)


def _correlation(answers: Floats) -> npt.NDArray[np.float64]:
    centred = answers - answers.mean(0)
    spread = np.sqrt((centred**2).sum(0)) + 1e-9
    correlation: npt.NDArray[np.float64] = (centred.T @ centred / np.outer(spread, spread)).astype(np.float64)
    np.fill_diagonal(correlation, np.inf)
    return correlation


def _commonest(claimed: Classes, classes: int) -> tuple[int, int]:
    first, second = np.argsort(-np.bincount(claimed, minlength=classes), kind="stable")[:2]
    return int(first), int(second)


def _swap(claimed: Classes, first: int, second: int) -> Classes:
    return np.where(claimed == first, second, np.where(claimed == second, first, claimed))


ATTACKS = (
    Attack("random", _random),
    Attack("constant class", _constant),
    Attack("shifted labels", _shifted),
    Attack("shifted honest mean", _shifted_mean),
    Attack("loss maximisation", _loss_maximisation),
    Attack("class prior", _class_prior),
    Attack("lied counts, shifted labels", _shifted, lies_of_counts=True),
    Attack("honest mean, two classes swapped", _swapped_mean),
    Attack("copy of a neighbour, two classes swapped", _copied),
    Attack("own answers, two classes swapped", _own_swapped),
    Attack("half honest", _half_honest),
    Attack("backdoor", _backdoor),
    Attack("turned", _turned),
)
