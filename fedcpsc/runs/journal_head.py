# SPDX-License-Identifier: Apache-2.0
"""First line of a bank's journal: whose answers the bank holds, and what their columns mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired

from typing_extensions import TypedDict

from fedcpsc.label_sets import LabelSets
from fedcpsc.runs.origins import check_origins

__all__ = ["JournalHead", "journal_head", "label_sets_of_head", "label_sets_to_head", "origins_of_head"]


class JournalHead(TypedDict):
    """First line of a journal; its readers check each value, for the file may be damaged.

    Attributes:
        format: number of this layout of the journal.
        image_shape: shape of an image, [C, H, W].
        classes: number of classes K.
        silos: names of the silos, in the order of their answers.
        label_sets: silos' label sets, as `LabelSets`: names, places by silo and numbers of the silos with a column for
            none; missing where the classes go by number and all silos have the same, as in earlier versions.
        origins: names of the images' origins by code, see `origins.py`; missing in journals of earlier versions, whose
            banks do not note them.
        nonce: random text from which the query ids follow; missing in journals of earlier versions.
    """

    format: int
    image_shape: list[int]
    classes: int
    silos: list[str]
    label_sets: NotRequired[dict[str, Any]]
    origins: NotRequired[list[str]]
    nonce: NotRequired[str]


def journal_head(
    image_shape: tuple[int, int, int],
    classes: int,
    silos: Sequence[str],
    sets: LabelSets,
    origins: Sequence[str] | None,
) -> JournalHead:
    """The head of a new journal, but for its nonce.

    Args:
        image_shape: shape of an image, (C, H, W).
        classes: number of classes K.
        silos: names of the silos, in the order of their answers.
        sets: silos' label sets.
        origins: names of the images' origins by code; None: the bank does not note them.
    """
    head: JournalHead = {"format": 1, "image_shape": list(image_shape), "classes": classes, "silos": list(silos)}
    if (kept := label_sets_to_head(sets)) is not None:
        head["label_sets"] = kept
    if origins is not None:
        head["origins"] = list(origins)
    return head


def label_sets_to_head(sets: LabelSets) -> dict[str, Any] | None:
    """What a journal's head says of label sets; None where they go by number and are the same at every silo."""
    if sets.alike and sets.names is None:
        return None
    return {
        "names": None if sets.names is None else list(sets.names),
        "places": None if set(sets.places) <= {tuple(range(sets.classes))} else [list(own) for own in sets.places],
        "none": [silo for silo, none in enumerate(sets.none) if none],
    }


def label_sets_of_head(head: JournalHead, classes: int, silos: int) -> LabelSets:
    """The inverse.

    Raises:
        KeyError, TypeError, ValueError: the head is damaged.
    """
    kept, plain = head.get("label_sets"), LabelSets.by_number(classes, silos)
    if kept is None:
        return plain
    names, places, none = kept["names"], kept["places"], {int(silo) for silo in kept["none"]}
    placed = plain.places if places is None else tuple(tuple(int(place) for place in own) for own in places)
    fits = len(placed) == silos and all(0 <= place < classes for own in placed for place in own)
    if not fits or (names is not None and len(names) != classes):
        raise ValueError("label_sets do not fit the silos and classes")
    flags = tuple(silo in none for silo in range(silos))
    return LabelSets(classes, None if names is None else tuple(map(str, names)), placed, flags)


def origins_of_head(head: JournalHead) -> tuple[str, ...] | None:
    """Names of the images' origins by code; None where the bank does not note them.

    Raises:
        TypeError, ValueError: the head is damaged.
    """
    return check_origins(head["origins"]) if "origins" in head else None
