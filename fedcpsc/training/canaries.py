# SPDX-License-Identifier: Apache-2.0
"""Canaries: mislabelled units in a teacher's own training, by which its owner can audit it in one run.

Every unit (a record, or a person with all its records) becomes a canary by a coin of its own. A canary's records get
labels drawn uniformly from the wrong ones, and a fair coin decides whether the teacher is trained on them under those
labels or not at all. Whoever can say from the teacher how the coins fell has shown what it remembers of single units
(Steinke, Nasr & Jagielski 2023, arXiv 2305.08846; `fedcpsc.audit.bounds`).

Formal guarantee: the training's (epsilon, delta) per unit under add/remove holds for the training with canaries too.
Proof. A unit's role (whether it is a canary, its labels, its coin) is drawn from a distribution that depends on nobody
else. Let D' be D and one unit u more. Fix the roles of all units of D and the role of u: the sets trained on are then
the same but for u, which is there as it is, or under wrong labels, or not at all. They differ by at most one unit, so
P'(S) <= e^epsilon P(S) + delta for these roles, and P(S) <= e^epsilon P'(S) + delta. The roles of D are distributed
alike in both worlds, so both inequalities survive the average over them and over the role of u: they are linear.

| what would break the proof | why |
|---|---|
| a fixed number of canaries, drawn as a sample | u takes the place of another canary: two units or more differ |
| drawing again until there are enough | the roles of D then depend on whether u is there |
| copies of records as additional canaries | the person in them is in the training twice |
| the rate asked / (true number of units) | all roles depend on the number; DP-SGD takes its plan's public one |
| single records of a person as canaries | what is protected is the whole person |

The number of canaries is therefore random: binomial, about the number asked for, and 0 is possible. What a fixed number
costs was computed exactly: a noisy sum of 20 records, 10 of them canaries, has delta 9e-4 at epsilon 1, not 1e-5.

`canaries.json` is the owner's alone (mode 0600): an audit's bound holds only for guesses of those who do not know the
coins. Nothing of it crosses the wire.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from fedcpsc.data.images import ImageSet
from fedcpsc.data.units import record_ids, unit_numbers
from fedcpsc.errors import ConfigError, DataError, ManifestError, explain
from fedcpsc.files import write_whole
from fedcpsc.privacy.randomness import SecretStream
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.typed_yaml import Strict

__all__ = ["CANARIES_FILE", "Canaries", "canary_images", "draw_canaries", "load_canaries", "planted", "save_canaries"]

CANARIES_FILE = "canaries.json"


@dataclass(frozen=True, eq=False)
class Canaries:
    """The roles of U canaries, which have R records.

    Attributes:
        positions: places of the canaries' records among the silo's private images, int64 [R], ascending.
        labels: wrong label of each record, int64 [R].
        units: number of the canary that each record belongs to, int64 [R] in [0, U).
        included: whether the teacher was trained on each canary, bool [U].
        records_sha256: hash of the records at these places as the silo has them, with their true labels.
    """

    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    included: npt.NDArray[np.bool_]
    records_sha256: str

    def __len__(self) -> int:
        """Number U of canaries: of coins, not of records."""
        return len(self.included)


def draw_canaries(images: ImageSet, count: int, among: int) -> Canaries:
    """Fresh roles from the operating system's entropy: each unit is a canary with probability count / among.

    Args:
        images: the silo's private images.
        count: expected number of canaries, in [1, among / 2].
        among: number of units that the rate is reckoned by; a public one, where the training claims anything.

    Raises:
        ConfigError: where more than half would be canaries, or there is no wrong class.
    """
    if not 1 <= count <= among // 2:
        raise ConfigError(
            explain(
                "teachers.training.canaries",
                count,
                f"must be in [1, {among // 2}], at most half of {among} records",
                "plant fewer, or 0 for none",
            )
        )
    if images.classes < 2:
        raise ConfigError(explain("teachers.training.canaries", count, "needs 2 classes or more", "plant none"))
    stream, numbers = SecretStream(), unit_numbers(images)
    chosen = stream.coins(count / among, int(numbers.max(initial=-1)) + 1)
    included = stream.coins(0.5, int(chosen.sum()))
    positions = np.flatnonzero(chosen[numbers])
    units = (np.cumsum(chosen) - 1)[numbers[positions]]
    labels = (images.labels[positions] + 1 + stream.below(images.classes - 1, len(positions))) % images.classes
    return Canaries(positions, labels, units, included, _digest(images.subset(positions)))


def planted(images: ImageSet, canaries: Canaries) -> ImageSet:
    """What the teacher is trained on: included canaries under their wrong labels, the others left out.

    Args:
        images: the silo's private images.
        canaries: their roles.
    """
    labels, kept = images.labels.copy(), np.ones(len(images), np.bool_)
    labels[canaries.positions] = canaries.labels
    kept[canaries.positions] = canaries.included[canaries.units]
    return replace(images, labels=labels).subset(np.flatnonzero(kept))


def canary_images(images: ImageSet, canaries: Canaries) -> ImageSet:
    """The R records of all canaries with their wrong labels, included or not, in the order of `canaries.units`.

    Args:
        images: the silo's private images, the same in the same order as when the teacher was made.
        canaries: their roles.

    Raises:
        DataError: where the images are others.
    """
    inside = not len(canaries.positions) or int(canaries.positions[-1]) < len(images)
    if not inside or _digest(images.subset(canaries.positions)) != canaries.records_sha256:
        raise DataError(
            explain(
                "private images",
                len(images),
                "are not those the canaries were planted in, or lie in another order",
                "use the data and configuration that the teacher was made with",
            )
        )
    return replace(images.subset(canaries.positions), labels=canaries.labels)


class _File(Strict):
    format_version: Literal[2] = 2
    weights_sha256: str
    records_sha256: str
    positions: tuple[Annotated[int, Field(ge=0)], ...]
    labels: tuple[Annotated[int, Field(ge=0)], ...]
    units: tuple[Annotated[int, Field(ge=0)], ...]
    included: tuple[bool, ...]


class _Version(BaseModel):
    format_version: int


def save_canaries(canaries: Canaries, folder: Path, weights_sha256: str) -> None:
    """Writes `canaries.json`, whole or not at all, readable by its owner alone.

    Args:
        canaries: their roles.
        folder: folder of the silo.
        weights_sha256: hash of the weights of the teacher they were planted in.
    """
    content = _File(
        weights_sha256=weights_sha256,
        records_sha256=canaries.records_sha256,
        positions=tuple(canaries.positions.tolist()),
        labels=tuple(canaries.labels.tolist()),
        units=tuple(canaries.units.tolist()),
        included=tuple(canaries.included.tolist()),
    )
    write_whole(folder / CANARIES_FILE, json.dumps(content.model_dump(mode="json")) + "\n", private=True)


def load_canaries(folder: Path, manifest: Manifest) -> Canaries:
    """The canaries of the teacher in `folder`; possibly none, since coins decided their number.

    Raises:
        ManifestError: where none were asked for, the file is damaged or of an older form, or it belongs to another
            teacher.
    """
    path = folder / CANARIES_FILE
    try:
        text = path.read_bytes()
        if _Version.model_validate_json(text).format_version == 1:
            constraint = "is of format 1: its canaries were a sample of fixed size, with which no claim holds"
            raise ManifestError(explain("canaries", str(path), constraint, "train the teacher again"))
        content = _File.model_validate_json(text)
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
        np.array(content.units, np.int64),
        np.array(content.included, np.bool_),
        content.records_sha256,
    )
    rising = bool((np.diff(found.positions) > 0).all())
    whole = np.array_equal(np.unique(found.units), np.arange(len(found)))
    if not rising or not whole or not len(found.positions) == len(found.labels) == len(found.units):
        raise ManifestError(explain("canaries", str(path), "is damaged", "make the teacher again"))
    return found


def _digest(images: ImageSet) -> str:
    return hashlib.sha256(b"".join(record_ids(images.images, images.labels))).hexdigest()
