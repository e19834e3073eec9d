# SPDX-License-Identifier: Apache-2.0
"""What a reading of pictures found, shown to their owner: classes with counts, what was left out and why, sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fedcpsc.printable import printable

__all__ = ["LeftOut", "ReadingReport", "Tally", "first_of"]

_SHOWN = 3  # names of examples in a line
_CLASSES_SHOWN = 30
_SIZES_SHOWN = 4


@dataclass(frozen=True)
class LeftOut:
    """Files or rows that were not taken, for one reason.

    Attributes:
        reason: reason, as in "12 files: hidden".
        count: number of them, >= 1.
        examples: names of the first few.
    """

    reason: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        such = f", such as {', '.join(self.examples)}" if self.examples else ""
        return f"{self.count} {self.reason}{such}"


class Tally:
    """Counts what is left out, by reason, with the first few names of each: it does not grow with the data."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Counts one.

        Args:
            reason: reason that it is left out for, as in `LeftOut`.
            name: name of the file or row.
        """
        self._counts[reason] = self._counts.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < _SHOWN:
            examples.append(printable(name))

    def found(self) -> tuple[LeftOut, ...]:
        """All reasons in the order in which they were met."""
        return tuple(LeftOut(why, count, tuple(self._examples[why])) for why, count in self._counts.items())


@dataclass(frozen=True)
class ReadingReport:
    """What was read, as what, and what was left out.

    Attributes:
        place: place of the pictures, a folder or a file.
        use: what the pictures are for: "images to train on", "held-out images".
        class_names: K names in the order of the outputs; numbers where the source has no names; none where the
            pictures are without labels.
        named: whether the source itself names its classes.
        counts: number of pictures of each class, K of them; of pictures without labels the number of all.
        image_shape: (C, H, W) of all of them now.
        sizes: (width, height, number of pictures) that were found, the most frequent first.
        resize: what was done to pictures of another size: squash, crop or pad.
        left_out: files and rows that were not taken.
        notes: sentences about what else was done to some pictures, or is unusual.
    """

    place: str
    use: str
    class_names: tuple[str, ...]
    named: bool
    counts: tuple[int, ...]
    image_shape: tuple[int, int, int]
    sizes: tuple[tuple[int, int, int], ...]
    resize: str
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The report as a table in plain text, bounded in length."""
        total, classes = sum(self.counts), len(self.class_names)
        within = f" in {classes} classes" if classes else ""
        yield f"{self.use}: {total}{within}, from {printable(self.place)}"
        if classes:
            yield from self._class_lines()
        yield f"  sizes: {self._sizes()}"
        yield from (f"  left out: {item}" for item in self.left_out)
        yield from (f"  note: {note}" for note in self.notes)

    def _class_lines(self) -> Iterator[str]:
        classes = len(self.class_names)
        width = max(5, *(len(name) for name in self.class_names[:_CLASSES_SHOWN]))
        yield f"  {'output':>6}  {'class':<{width}}  images"
        for k in range(min(classes, _CLASSES_SHOWN)):
            yield f"  {k:>6}  {self.class_names[k]:<{width}}  {self.counts[k]:>6}"
        if classes > _CLASSES_SHOWN:
            rest = self.counts[_CLASSES_SHOWN:]
            yield f"  and {len(rest)} classes more, {sum(1 for count in rest if not count)} of them empty: {sum(rest)}"

    def _sizes(self) -> str:
        _, height, width = self.image_shape
        shown = ", ".join(f"{count} of {w}x{h}" for w, h, count in self.sizes[:_SIZES_SHOWN])
        rest = self.sizes[_SIZES_SHOWN:]
        if rest:
            shown += f", {sum(count for _, _, count in rest)} of {len(rest)} other sizes"
        if any((w, h) != (width, height) for w, h, _ in self.sizes):
            done = {"squash": "squashed", "crop": "cropped", "pad": "padded"}[self.resize]
            unlike = any(w * height != h * width for w, h, _ in self.sizes)
            shown += f" (width x height), {done if unlike else 'scaled'} to {width}x{height}"
        return shown


def first_of(names: Iterable[str], count: int, shown: int = 10) -> str:
    """The first few of `count` names in a row, and how many more there are."""
    first = [printable(name) for name, _ in zip(names, range(shown), strict=False)]
    return ", ".join(first) + (f" and {count - len(first)} more" if count > len(first) else "")
