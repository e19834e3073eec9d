# SPDX-License-Identifier: Apache-2.0
"""The classes of a federation whose silos know different ones: their union by name, and where each silo's belong.

- Where all silos name their classes, the federation's classes are the union of the names: in the order of the silo
  that comes first by name, then what each next silo adds, in its order. A silo's word may stand for another of the
  federation's (`aliases`). Names that differ by case or space alone are refused: nobody knows whether they are one.
- Where no silo does, classes go by number, and all silos must have equally many.
- Where some do, those must all have the same names in the same order, and the others as many classes: they are then
  taken to number theirs alike, as silos of earlier versions always were.

A silo answers in its own classes. `LabelSets` puts its columns where they belong; what it does not know is 0. Where a
silo's last column says "none of these", its answer sums to the rest alone, and it counts by the odds that the
image is of its classes (`LabelSets.weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from fedcpsc.class_names import folded
from fedcpsc.errors import FederationError, explain
from fedcpsc.late_numpy import np, npt

__all__ = ["Aliases", "LabelSets", "SiloClasses", "unite"]

Floats: TypeAlias = "npt.NDArray[np.float32]"
Aliases: TypeAlias = Mapping[str, str]
"""The federation's word by a silo's word."""

_LARGEST = 1000.0  # no silo counts more than so many times as much as one that is undecided
_LEAST = 1 / 510
_SHOWN = 12  # names in an error


@dataclass(frozen=True)
class SiloClasses:
    """What a silo says of its classes.

    Attributes:
        classes: number of its classes, without "none of these", >= 1.
        names: their names, valid and distinct (`class_names`); None where it names none.
        none_class: whether its answers have a last column for "none of these".
    """

    classes: int
    names: tuple[str, ...] | None = None
    none_class: bool = False


@dataclass(frozen=True)
class LabelSets:
    """The federation's classes, and those of each of its S silos.

    Attributes:
        classes: number of the federation's classes K, >= 2.
        names: their names; None where they go by number.
        places: for each silo the federation's class of each of its own, S tuples of different numbers in [0, K).
        none: whether each silo's last column says "none of these".
    """

    classes: int
    names: tuple[str, ...] | None
    places: tuple[tuple[int, ...], ...]
    none: tuple[bool, ...]

    @classmethod
    def by_number(cls, classes: int, silos: int) -> LabelSets:
        """Silos that all have the same K classes."""
        return cls(classes, None, (tuple(range(classes)),) * silos, (False,) * silos)

    @cached_property
    def alike(self) -> bool:
        """Whether every silo's columns are the federation's classes in their order."""
        everything = tuple(range(self.classes))
        return not any(self.none) and all(own == everything for own in self.places)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Number of columns of each silo's answers."""
        return tuple(len(own) + none for own, none in zip(self.places, self.none, strict=True))

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which classes each silo knows, [S, K]."""
        known = np.zeros((len(self.places), self.classes), bool)
        for silo, own in enumerate(self.places):
            known[silo, list(own)] = True
        return known

    def federated(self, silo: int, own: Floats) -> tuple[Floats, Floats]:
        """One silo's answers in the federation's classes.

        Args:
            silo: number of the silo, in [0, S).
            own: its decoded answers, [N, its columns], rows sum to 1.

        Returns:
            float32 [N, K], 0 in classes that it does not know; and the sum of each row, [N]: 1, or less by what the
            answer says of "none of these", but never less than half a level of 8 bits.
        """
        places = self.places[silo]
        dense = np.zeros((len(own), self.classes), np.float32)
        if not self.none[silo]:
            dense[:, list(places)] = own
            return dense, np.ones(len(own), np.float32)
        classes = own[:, : len(places)]
        total = classes.sum(1, keepdims=True)
        mass = total.clip(np.float32(_LEAST), 1)
        even = np.float32(1 / len(places))  # of an image that is none of its classes, it says nothing of them
        dense[:, list(places)] = np.where(total > 0, classes * (mass / np.where(total > 0, total, 1)), mass * even)
        return dense, mass[:, 0].astype(np.float32)

    def of_known_classes(self) -> LabelSets:
        """The same without classes that no silo knows; the others keep their order."""
        kept = np.flatnonzero(self.known.any(0)).tolist()
        place = {old: new for new, old in enumerate(kept)}
        return LabelSets(
            classes=len(kept),
            names=None if self.names is None else tuple(self.names[old] for old in kept),
            places=tuple(tuple(place[old] for old in own) for own in self.places),
            none=self.none,
        )

    def weights(self, mass: Floats) -> Floats | None:
        """How much each silo counts for each image, [S, N] in (0, 1]; None where no silo can say "none of these".

        With p the probability of none, w is the square root of (1 - p) / p, the odds that the image is of the silo's
        classes, kept within 1/1000 and 1000, and 1 of silos that cannot say so; all divided by 1000. Where silos share
        no class the odds themselves do no better; where they share some, the root leaves more to confidence.

        Args:
            mass: 1 - p of each silo and image, [S, N] in (0, 1].
        """
        if not any(self.none):
            return None
        odds = mass / np.maximum(1 - mass, np.float32(1e-9))
        can = np.asarray(self.none)[:, None]
        rooted = np.sqrt(odds).clip(1 / _LARGEST, _LARGEST)
        weight: Floats = (np.where(can, rooted, 1.0) / _LARGEST).astype(np.float32)
        return weight

    def of_counts(self, silo: int, counts: Sequence[float]) -> Floats:
        """One number for each of a silo's classes as numbers of the federation's, [K]; 0 of those it does not know."""
        dense = np.zeros(self.classes, np.float32)
        dense[list(self.places[silo])] = counts
        return dense

    def place_of(self, names: tuple[str, ...], aliases: Aliases) -> dict[str, int]:
        """The federation's class of each of some names that it knows.

        Args:
            names: names, valid and distinct.
            aliases: words that stand for others.

        Raises:
            FederationError: a name differs from the federation's by case or space alone.
        """
        mine = {name: place for place, name in enumerate(self.names or ())}
        alike = {folded(name): name for name in mine}
        found: dict[str, int] = {}
        for name in names:
            word = aliases.get(name, name)
            if word in mine:
                found[name] = mine[word]
            elif folded(word) in alike:
                raise _too_alike("the held-out images", word, "the federation", alike[folded(word)])
        return found


def unite(silos: Mapping[str, SiloClasses], aliases: Aliases, *, complete: bool = True) -> LabelSets:
    """The classes of silos that have joined; the order of silos is kept.

    Args:
        silos: what each silo says of its classes, by its name.
        aliases: words of silos that stand for others of the federation (`aggregation.aliases`).
        complete: whether these are all silos: an alias of no use is then an error.

    Raises:
        FederationError: the silos' classes do not fit together.
    """
    named = {silo: own for silo, own in silos.items() if own.names is not None}
    if not named:
        return _by_number(silos, aliases if complete else {})
    _check_unnamed(silos, named)
    words = {silo: tuple(aliases.get(name, name) for name in own.names or ()) for silo, own in named.items()}
    if complete:
        _check_used(named, aliases)
    for silo, own in words.items():
        twice = next((word for word in own if own.count(word) > 1), None) if len(set(own)) < len(own) else None
        if twice is not None:
            constraint = f"{silo} would have this class twice"
            raise FederationError(explain("aggregation.aliases", twice, constraint, "give each class one word"))
    places: dict[str, int] = {}
    whose: dict[str, tuple[str, str]] = {}  # by the name without case and space: the name, and who has it
    for silo in sorted(words):
        for word in words[silo]:
            before, by = whose.setdefault(folded(word), (word, silo))
            if before != word:
                raise _too_alike(silo, word, by, before)
            places.setdefault(word, len(places))
    if len(places) < 2:
        constraint = "a federation needs at least 2 classes"
        raise FederationError(explain("classes", ", ".join(places), constraint, "let silos join that know others"))
    by_number = tuple(range(len(places)))
    placed = {own: tuple(places[word] for word in own) for own in set(words.values())}
    return LabelSets(
        classes=len(places),
        names=tuple(places),
        places=tuple(placed[words[silo]] if silo in words else by_number for silo in silos),
        none=tuple(own.none_class for own in silos.values()),
    )


def _by_number(silos: Mapping[str, SiloClasses], aliases: Aliases) -> LabelSets:
    if aliases:
        constraint = "no silo names its classes, so there are no words to replace"
        raise FederationError(explain("aggregation.aliases", dict(aliases), constraint, "leave it out"))
    counts = {silo: own.classes for silo, own in silos.items()}
    if len(set(counts.values())) > 1:
        remedy = "let the silos' owners name their classes in their manifests, or leave out those that differ"
        raise FederationError(explain("classes", counts, "must be the same at every silo that names none", remedy))
    classes = next(iter(counts.values()))
    if classes < 2:
        raise FederationError(explain("classes", classes, "a federation needs at least 2", "let other silos join"))
    none = tuple(own.none_class for own in silos.values())
    return LabelSets(classes, None, (tuple(range(classes)),) * len(silos), none)


def _check_unnamed(silos: Mapping[str, SiloClasses], named: Mapping[str, SiloClasses]) -> None:
    """Silos that name no classes pass only where all others agree on names, order and number."""
    unnamed = [silo for silo in silos if silo not in named]
    if not unnamed:
        return
    first = next(iter(named.values()))
    same = all(own.names == first.names for own in named.values())
    if not same or any(silos[silo].classes != first.classes for silo in unnamed):
        who = ", ".join(unnamed[:_SHOWN])
        constraint = "they name no classes, and those that do differ, or have another number of classes"
        raise FederationError(explain("silos", who, constraint, "let their owners name the classes in manifest.json"))


def _check_used(named: Mapping[str, SiloClasses], aliases: Aliases) -> None:
    words = {name for own in named.values() for name in own.names or ()}
    for word in aliases:
        if word not in words:
            import difflib  # noqa: PLC0415 - for this error alone

            near = difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.0)
            constraint = f"no silo has a class of this name; the nearest is {near[0] if near else None!r}"
            raise FederationError(explain("aggregation.aliases", word, constraint, "fix the word, or leave it out"))


def _too_alike(silo: str, word: str, other: str, before: str) -> FederationError:
    constraint = f"{silo} has this class and {other} has {before!r}: they differ by case or space alone"
    remedy = f"say that they are one, by aggregation.aliases: {{{word!r}: {before!r}}}, or let an owner rename one"
    return FederationError(explain("class", word, constraint, remedy))
