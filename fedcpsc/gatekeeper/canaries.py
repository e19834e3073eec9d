"""Canaries: mislabelled records in a teacher's own training, by which its owner can audit it in one run.

N of the records are set aside as canaries. Each gets a label drawn uniformly from the wrong ones, and a fair coin
decides whether the teacher is trained on it under that label or not at all. Whoever can tell from the teacher how the
coins fell has shown what it remembers of single records (Steinke, Nasr & Jagielski 2023, arXiv 2305.08846;
`fedcpsc.audit.bounds`).

Formal guarantee: for any roles (which places are canaries, their labels, their coins), every private record becomes at
most one record of the training set, whatever the others are. Adding or removing a record together with its role thus
adds or removes at most one record trained on, and the training's guarantee carries over unchanged. Copies of private
images as additional records would not do: the person in them would be in the training twice. Roles are drawn for
places, never from content, by the operating system.

`canaries.json` is the owner's alone (mode 0600): an audit's bound holds only for guesses of those who do not know the
coins. Nothing of it crosses the wire.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from fedcpsc.data.images import ImageSet
from fedcpsc.errors import ConfigError, DataError, ManifestError, explain
from fedcpsc.files import write_whole
from fedcpsc.gatekeeper.manifest import Manifest
from fedcpsc.gatekeeper.sharding import record_ids
from fedcpsc.typed_yaml import Strict

__all__ = ["CANARIES_FILE", "Canaries", "canary_images", "draw_canaries", "load_canaries", "planted", "save_canaries"]

CANARIES_FILE = "canaries.json"


@dataclass(frozen=True, eq=False)
class Canaries:
    """The roles of N records.

    Attributes:
        positions: where the canaries lie in the silo's private images, int64 [N], ascending.
        labels: the wrong label of each, int64 [N].
        included: whether the teacher was trained on it, bool [N].
        records_sha256: of the records at these places as the silo has them, with their true labels.
    """

    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    included: npt.NDArray[np.bool_]
    records_sha256: str

    def __len__(self) -> int:
        return len(self.positions)


def draw_canaries(images: ImageSet, count: int) -> Canaries:
    """Fresh roles: places, wrong labels and coins, all from the operating system's entropy.

    Args:
        images: the silo's private images.
        count: N, in [1, images / 2].

    Raises:
        ConfigError: where there are too few images.
    """
    if not 1 <= count <= len(images) // 2:
        raise ConfigError(
            explain(
                "teachers.training.canaries",
                count,
                f"must be in [1, {len(images) // 2}], at most half of {len(images)} images",
                "plant fewer, or 0 for none",
            )
        )
    positions = np.array(sorted(secrets.SystemRandom().sample(range(len(images)), count)), np.int64)
    shifts = np.array([1 + secrets.randbelow(images.classes - 1) for _ in range(count)], np.int64)
    labels = (images.labels[positions] + shifts) % images.classes
    included = np.array([secrets.randbits(1) for _ in range(count)], np.bool_)
    return Canaries(positions, labels, included, _digest(images.subset(positions)))


def planted(images: ImageSet, canaries: Canaries) -> ImageSet:
    """What the teacher is trained on: included canaries under their wrong label, the others left out.

    Args:
        images: the silo's private images.
        canaries: their roles.
    """
    labels, kept = images.labels.copy(), np.ones(len(images), np.bool_)
    labels[canaries.positions] = canaries.labels
    kept[canaries.positions] = canaries.included
    return ImageSet(images.images[kept], labels[kept], images.classes)


def canary_images(images: ImageSet, canaries: Canaries) -> ImageSet:
    """All N canaries with their wrong labels, included or not, in the order of `canaries.included`.

    Args:
        images: the silo's private images, the same in the same order as when the teacher was made.
        canaries: their roles.

    Raises:
        DataError: where the images are others.
    """
    inside = not len(canaries) or int(canaries.positions[-1]) < len(images)
    if not inside or _digest(images.subset(canaries.positions)) != canaries.records_sha256:
        raise DataError(
            explain(
                "private images",
                len(images),
                "are not those the canaries were planted in, or lie in another order",
                "use the data and configuration that the teacher was made with",
            )
        )
    return ImageSet(images.images[canaries.positions], canaries.labels, images.classes)


class _File(Strict):
    format_version: Literal[1] = 1
    weights_sha256: str
    records_sha256: str
    positions: tuple[Annotated[int, Field(ge=0)], ...]
    labels: tuple[Annotated[int, Field(ge=0)], ...]
    included: tuple[bool, ...]


def save_canaries(canaries: Canaries, folder: Path, weights_sha256: str) -> None:
    """Writes `canaries.json`, whole or not at all, readable by its owner alone.

    Args:
        canaries: their roles.
        folder: the silo's.
        weights_sha256: of the teacher they were planted in.
    """
    content = _File(
        weights_sha256=weights_sha256,
        records_sha256=canaries.records_sha256,
        positions=tuple(canaries.positions.tolist()),
        labels=tuple(canaries.labels.tolist()),
        included=tuple(canaries.included.tolist()),
    )
    write_whole(folder / CANARIES_FILE, json.dumps(content.model_dump(mode="json")) + "\n", private=True)


def load_canaries(folder: Path, manifest: Manifest) -> Canaries:
    """The canaries of the teacher in `folder`.

    Raises:
        ManifestError: where there are none, the file is damaged, or it belongs to another teacher.
    """
    path = folder / CANARIES_FILE
    try:
        content = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = "train the teacher with teachers.training.canaries"
        raise ManifestError(explain("canaries", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    except ValidationError as error:
        raise ManifestError(explain("canaries", str(path), "is damaged", "make the teacher again")) from error
    if content.weights_sha256 != manifest.weights_sha256:
        raise ManifestError(
            explain("canaries", str(path), "belong to another teacher than the manifest's", "make the teacher again")
        )
    found = Canaries(
        np.array(content.positions, np.int64),
        np.array(content.labels, np.int64),
        np.array(content.included, np.bool_),
        content.records_sha256,
    )
    rising = bool((np.diff(found.positions) > 0).all())
    if not rising or not len(found.positions) == len(found.labels) == len(found.included) > 0:
        raise ManifestError(explain("canaries", str(path), "is damaged", "make the teacher again"))
    return found


def _digest(images: ImageSet) -> str:
    return hashlib.sha256(b"".join(record_ids(images.images, images.labels))).hexdigest()
