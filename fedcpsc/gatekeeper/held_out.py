# SPDX-License-Identifier: Apache-2.0
"""The owner's held-out labelled images, read once when the gatekeeper opens, in the teacher's shape and classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.data.decode import PictureForm, decode
from fedcpsc.data.readers.source import Split, read_split
from fedcpsc.data.reading import first_of
from fedcpsc.data.units import record_ids
from fedcpsc.errors import DataError, PolicyError, explain
from fedcpsc.gatekeeper.evaluation_policy import EvaluationPolicy, HeldOutImages
from fedcpsc.gatekeeper.seen_records import number_seen
from fedcpsc.silo_config import ColumnPersons
from fedcpsc.teachers.manifest import Manifest

__all__ = ["HELD_OUT_FOLDER", "PERSON_COLUMN", "HeldOut", "read_held_out"]

HELD_OUT_FOLDER = "held_out"
"""Folder in the silo's own with what was set aside when the silo was made (`silos.held_out`)."""
PERSON_COLUMN = "person"
"""Column of its parquet file with the persons, where persons are protected."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Images that no teacher of the silo was trained on, with their labels.

    Attributes:
        images: uint8 [N, C, H, W], N >= 1.
        labels: int64 [N], numbers of the silo's own classes.
        notes: sentences for the owner: how they were read, what was left out, and why; which class each number was
            taken for, where classes could not be compared by name; and how many images were trained on.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def read_held_out(folder: Path, section: EvaluationPolicy, manifest: Manifest) -> HeldOut:
    """The images that a policy names.

    Images that `records.seen` knows are counted all the same, and told of: to leave them out would let one record of
    the training set move the count by as many images as there are copies of it.

    Of a person with more than `images_per_person` images the first ones are kept, in the order of the files: which
    those are depends on no other person, as the count's guarantee asks.

    Args:
        folder: the silo's folder.
        section: section `evaluation` of its policy.
        manifest: manifest of its teacher.

    Raises:
        PolicyError: they cannot be read, have classes that the silo does not know, or name no persons where persons are
            protected.
    """
    wanted = section.images or _set_aside(manifest)
    try:
        split = read_split(wanted.as_data(), folder / wanted.path, wanted.split)
        channels, height, width = manifest.image_shape
        if channels not in (1, 3):
            constraint = f"pictures have 1 or 3 channels, and the teacher takes {channels}"
            raise DataError(explain("evaluation.images", wanted.path, constraint, "remove the section evaluation"))
        form = PictureForm((height, width), channels, manifest.resize, wanted.background)
        found = decode(split.pictures, split.name_of, form, skip_damaged=wanted.skip_damaged)
    except (DataError, OSError) as error:
        remedy = "fix evaluation.images in the policy (where it is null, silos.held_out sets them aside), or remove it"
        raise PolicyError(explain("evaluation.images", wanted.path, f"cannot be read ({error})", remedy)) from error
    labels = _own_labels(split, manifest, wanted.path)[found.taken]
    kept, notes = np.arange(len(labels)), [f"{len(found.damaged)} cannot be decoded"] if found.damaged else []
    if section.images is not None:  # those that the silo itself set aside are of its own classes, by number or name
        notes += [*split.notes, *(f"left out: {item}" for item in split.left_out), *found.notes]
        notes += _matched_by_number(split, manifest)
    if manifest.unit == "person":
        if split.persons is None:
            why = "the silo protects persons, and these images name none"
            remedy = "say where they are named: evaluation.images.persons"
            raise PolicyError(explain("evaluation.images.persons", None, why, remedy))
        kept = _first_of_each(split.persons[found.taken], section.images_per_person)
        if len(kept) < len(labels):
            notes.append(
                f"{len(labels) - len(kept)} of {len(labels)} images are beyond evaluation.images_per_person="
                f"{section.images_per_person} of their person, and are not counted"
            )
    if len(kept) == 0:
        raise PolicyError(explain("evaluation.images", wanted.path, "holds no image", "name another place"))
    images, labels = found.images[kept], labels[kept]
    if manifest.unit != "person" and (known := number_seen(folder, record_ids(images, labels))):
        notes.append(f"{known} of {len(labels)} images were trained on here: what is said of students is too good")
    return HeldOut(images, labels, tuple(notes))


def _set_aside(manifest: Manifest) -> HeldOutImages:
    persons = ColumnPersons(column=PERSON_COLUMN) if manifest.unit == "person" else None
    return HeldOutImages(source="parquet", path=HELD_OUT_FOLDER, split="train", persons=persons)


def _own_labels(split: Split, manifest: Manifest, path: str) -> npt.NDArray[np.int64]:
    """The labels as numbers of the silo's own classes: by name where both have names, else by number.

    Raises:
        PolicyError: where that cannot be told.
    """
    own = manifest.class_names
    if own is not None and split.named:
        unknown = [name for name in split.class_names if name not in own]
        if unknown:
            why = f"{unknown[0]!r} is no class of the silo"
            remedy = "name those that are: evaluation.images.classes"
            raise PolicyError(explain("evaluation.images", path, why, remedy))
        return np.array([own.index(name) for name in split.class_names], np.int64)[split.labels]
    count = len(split.class_names)
    if count > manifest.classes or (split.named and count != manifest.classes):
        why = f"has {count} classes, the silo {manifest.classes}, and they cannot be compared by name"
        remedy = "name the classes in manifest.json, or let these images have an (empty) folder for each class"
        raise PolicyError(explain("evaluation.images", path, why, remedy))
    return split.labels.astype(np.int64)


def _matched_by_number(split: Split, manifest: Manifest) -> list[str]:
    """Sentences for the owner where one side alone names its classes: they are then the same by their order alone."""
    own, count = manifest.class_names, len(split.class_names)
    if split.named == (own is not None):
        return []
    notes = []
    if own is not None:
        shown = first_of((f"{number} is {own[k]!r}" for k, number in enumerate(split.class_names)), count)
        notes.append(f"the images' classes have no names, and are taken for the silo's by their order: {shown}")
    else:
        shown = first_of((f"{name!r} is {k}" for k, name in enumerate(split.class_names)), count)
        notes.append(f"the silo's classes have no names, and the images' are taken for them by their order: {shown}")
    if count < manifest.classes:
        notes.append(f"they are of {count} classes, and the silo has {manifest.classes}")
    return notes


def _first_of_each(persons: npt.NDArray[np.str_], most: int) -> npt.NDArray[np.int64]:
    """Places of the first `most` records of each person, ascending."""
    seen: dict[str, int] = {}
    kept = []
    for place, person in enumerate(persons.tolist()):
        seen[person] = seen.get(person, 0) + 1
        if seen[person] <= most:
            kept.append(place)
    return np.array(kept, np.int64)
