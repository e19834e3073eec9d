# SPDX-License-Identifier: Apache-2.0
"""What a model makes of a few of its owner's own pictures: wrong preprocessing shows here, and nowhere else as soon.

What is found is returned for the owner to look at; nothing of it is written, and nothing leaves the silo.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.class_names import folded
from fedcpsc.data.decode import PictureForm, decode
from fedcpsc.data.readers.listing import class_folders, list_all_pictures, list_pictures
from fedcpsc.data.reading import LeftOut
from fedcpsc.errors import ConfigError, DataError, ManifestError, TeacherError, explain
from fedcpsc.silos.adoption.wishes import NORMALISATIONS, named_normalisation
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.protocol import Floats, Teacher

__all__ = ["ClassCount", "Guess", "PictureView", "look_at_pictures"]

_OF_A_CLASS = 40  # pictures of each class that are asked about
_IN_ALL = 200
_SHOWN = 6
_TOP = 3
_ENOUGH = 10  # pictures with a known class, from which normalisations are compared
_BETTER = 0.1  # in accuracy, from which another normalisation is named


@dataclass(frozen=True)
class Guess:
    """What the model says of one picture.

    Attributes:
        picture: path of the picture, below the folder.
        top: (name of the class, probability) of the likeliest few, the likeliest first.
    """

    picture: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ClassCount:
    """How the pictures in one class's folder were answered.

    Attributes:
        name: name of the class.
        right: number of pictures answered with that class.
        count: number of pictures asked about.
        mistaken_for: name of the class that the others were mostly taken for; empty where all are right.
    """

    name: str
    right: int
    count: int
    mistaken_for: str = ""


@dataclass(frozen=True)
class PictureView:
    """What a model makes of its owner's pictures.

    Attributes:
        guesses: answers to a few of them.
        classes: classes whose pictures were in folders of their names.
        notes: sentences: what was left out, and what looks wrong.
    """

    guesses: tuple[Guess, ...]
    classes: tuple[ClassCount, ...]
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among the pictures whose class is known, in [0, 1]; None without any."""
        count = sum(each.count for each in self.classes)
        return sum(each.right for each in self.classes) / count if count else None

    def lines(self) -> Iterator[str]:
        """The same in words."""
        for guess in self.guesses:
            yield f"{guess.picture}: {', '.join(f'{name} {100 * p:.1f} %' for name, p in guess.top)}"
        for each in self.classes:
            others = f", others mostly taken for {each.mistaken_for}" if each.mistaken_for else ""
            yield f"{each.name}: {each.right} of {each.count} right{others}"
        if self.accuracy is not None:
            yield f"{100 * self.accuracy:.0f} % of these pictures right"
        yield from self.notes


@dataclass(frozen=True)
class _Taken:
    """Decoded pictures with the class of each, -1 where it is not known."""

    names: list[str]
    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]
    notes: list[str]


def look_at_pictures(
    folder: Path, manifest: Manifest, names: tuple[str, ...], open_as: Callable[[Manifest], Teacher]
) -> PictureView:
    """Asks a model about some of the pictures in a folder; sub-folders may be named like classes.

    Args:
        folder: folder of the owner's pictures.
        manifest: manifest of the teacher.
        names: names of its outputs, in their order.
        open_as: function that opens the teacher as a manifest says.

    Raises:
        DataError: where there are no pictures, or none that can be decoded.
        TeacherError: where the teacher fails on them.
    """
    taken = _read(folder, manifest, names)
    teacher = open_as(manifest)
    answers = teacher.predict(taken.images)
    known = taken.labels >= 0
    classes = tuple(_count(k, taken.labels, answers, names) for k in sorted(set(taken.labels[known].tolist())))
    notes = [*taken.notes, *_suspicions(taken, answers, manifest, open_as)]
    order = np.argsort([number % _OF_A_CLASS for number in _places(taken.labels)], kind="stable")
    guesses = tuple(_guess(taken.names[i], answers[i], names) for i in sorted(order[:_SHOWN].tolist()))
    return PictureView(guesses, classes, tuple(notes))


def _read(folder: Path, manifest: Manifest, names: tuple[str, ...]) -> _Taken:
    place = {folded(name): number for number, name in enumerate(names)}
    notes: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    try:
        below = class_folders(folder)
        listing, left_out = _listed(folder) if below else _flat(folder)
    except OSError as error:
        raise DataError(explain("--pictures", str(folder), f"cannot be read ({error.strerror})", "check it")) from error
    matched = [name for name in listing if folded(name) in place]
    if below and matched:
        foreign = [name for name in listing if name not in matched]
        if foreign:
            notes.append(f"no class is called {', '.join(map(repr, foreign[:_SHOWN]))}: those folders were left out")
        listing = {name: listing[name] for name in matched}
    elif below:
        notes.append("no sub-folder has the name of a class, so that nothing can be said about right and wrong")
    share = max(1, min(_OF_A_CLASS, _IN_ALL // max(1, len(listing))))
    for name, found in listing.items():
        some = _spread(found, share if below else _OF_A_CLASS)
        paths += some
        labels += [place.get(folded(name), -1) if below else -1] * len(some)
    if not paths:
        remedy = "put a few pictures there, for example PNG or JPEG, in sub-folders named like the classes"
        raise DataError(explain("--pictures", str(folder), "holds no picture that can be read", remedy))
    shown = [str(path.relative_to(folder)) for path in paths]
    channels, height, width = manifest.image_shape
    if channels not in (1, 3):
        constraint = f"a model of {channels} channels takes no pictures"
        raise DataError(explain("--pictures", str(folder), constraint, "leave it out"))
    form = PictureForm((height, width), channels, manifest.resize)
    decoded = decode(paths, lambda i: shown[i], form, skip_damaged=True)
    if decoded.damaged:
        first = shown[decoded.damaged[0][0]]
        notes.append(f"{len(decoded.damaged)} cannot be decoded, such as {first}")
    notes += [*decoded.notes, *(f"left out: {item}" for item in left_out)]
    kept = decoded.taken
    return _Taken([shown[i] for i in kept], np.array(labels, np.int64)[kept], decoded.images, notes)


def _listed(folder: Path) -> tuple[dict[str, list[Path]], tuple[LeftOut, ...]]:
    found = list_pictures(folder)
    return found.pictures, found.left_out


def _flat(folder: Path) -> tuple[dict[str, list[Path]], tuple[LeftOut, ...]]:
    pictures, left_out = list_all_pictures(folder, "--pictures")
    return {"": pictures}, left_out


def _spread(paths: list[Path], count: int) -> list[Path]:
    """At most `count` of them, evenly over the list."""
    if len(paths) <= count:
        return paths
    return [paths[place * len(paths) // count] for place in range(count)]


def _places(labels: npt.NDArray[np.int64]) -> list[int]:
    """The number of each picture among those of its class."""
    seen: Counter[int] = Counter()
    places = []
    for label in labels.tolist():
        places.append(seen[label])
        seen[label] += 1
    return places


def _guess(name: str, answer: npt.NDArray[np.float32], names: tuple[str, ...]) -> Guess:
    best = np.argsort(-answer, kind="stable")[:_TOP].tolist()
    return Guess(name, tuple((names[k], float(answer[k])) for k in best))


def _count(label: int, labels: npt.NDArray[np.int64], answers: Floats, names: tuple[str, ...]) -> ClassCount:
    found = answers[labels == label].argmax(1)
    wrong = Counter(found[found != label].tolist())
    mistaken = names[wrong.most_common(1)[0][0]] if wrong else ""
    return ClassCount(names[label], int((found == label).sum()), len(found), mistaken)


def _accuracy(answers: Floats, labels: npt.NDArray[np.int64]) -> float:
    known = labels >= 0
    return float((answers[known].argmax(1) == labels[known]).mean())


def _suspicions(
    taken: _Taken, answers: Floats, manifest: Manifest, open_as: Callable[[Manifest], Teacher]
) -> list[str]:
    """Whether another normalisation, or another order of the colours, would answer more of them right."""
    known = taken.labels >= 0
    if known.sum() < _ENOUGH or manifest.kind == "python":  # whose code normalises by itself
        return []
    labels, images = taken.labels[known], taken.images[known]
    now = _accuracy(answers, taken.labels)
    others = dict(_others(manifest))
    found: dict[str, float] = {}
    for name, other in others.items():
        try:
            found[f"--normalisation {name}"] = _accuracy(open_as(other).predict(images), labels)
        except (ManifestError, TeacherError):
            continue
    if manifest.image_shape[0] == 3:
        found["blue and red exchanged (BGR)"] = _accuracy(open_as(manifest).predict(images[:, ::-1].copy()), labels)
    best, accuracy = max(found.items(), key=lambda item: item[1], default=("", 0.0))
    if accuracy <= now + _BETTER:
        return []
    return [
        f"warning: with {best} it would answer {100 * accuracy:.0f} % of these pictures right instead of"
        f" {100 * now:.0f} %: check what was done to pixels when it was trained"
    ]


def _others(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    for name in NORMALISATIONS:
        try:
            other = named_normalisation(name, manifest.image_shape[0])
        except ConfigError:  # of another number of channels
            continue
        if not np.allclose([other.mean, other.std], [manifest.normalisation.mean, manifest.normalisation.std]):
            yield name, manifest.model_copy(update={"normalisation": other})
