# SPDX-License-Identifier: Apache-2.0
"""The manifest beside a teacher's weights: what the file is, how it was made, and which private data it knows.

A silo's folder holds `teacher.safetensors` and `manifest.json`. The manifest never leaves the silo; the gatekeeper
reads from it what a teacher needs, and shows the server only what the policy allows. Torch-free, so that tools that
look at a silo's folder start at once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from fedcpsc.choices import TEACHER_FORMATS
from fedcpsc.class_names import fault_of_class_names
from fedcpsc.errors import ConfigError, ManifestError, explain
from fedcpsc.files import write_whole
from fedcpsc.strict_json import parse_json
from fedcpsc.typed_yaml import OneOf, Strict, Tree, validate

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "MANIFEST_FILE",
    "WEIGHTS_FILE",
    "Digest",
    "Manifest",
    "Normalisation",
    "OldManifest",
    "dataset_id",
    "load_manifest",
    "load_old_manifest",
    "read_weights",
    "save_manifest",
    "sha256_hex",
]

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "teacher.safetensors"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=1)]
SiloName = Annotated[str, Field(min_length=1, max_length=200)]
DatasetId = Annotated[str, Field(pattern=r"^ds-[0-9a-f]{64}$")]


class Normalisation(Strict):
    """Public constants: the network takes `(pixel - mean) / std` with pixels in [0, 1], one value for each channel.

    Statistics of the private images must not stand here: they would be a release of their own.
    """

    mean: tuple[float, ...] = (0.5,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (0.5,)

    def in_words(self) -> str:
        """The constants to four digits, for messages."""
        mean, std = (",".join(f"{value:.4g}" for value in part) for part in (self.mean, self.std))
        return f"mean {mean}, std {std}"


class Manifest(Strict):
    """All that a gatekeeper must know of a teacher.

    Attributes:
        format_version: version of this file's format.
        silo: name of the silo, printable, 1 to 200 characters.
        population: name of the population whose protection is counted, printable, 1 to 120 characters; the silo's name
            where left out. Budget, ledger and every later teacher of the folder belong to it.
        unit: record or person: what one guarantee protects.
        origin: "trained": made by this project from a configuration, by which it may be trained anew; "adopted": made
            by its owner, and used as it is.
        kind: teacher format: what the weights file is, one of `choices.TEACHER_FORMATS`.
        architecture: name of the network in `models.registry`; the kind again where it has none.
        width: width of the network in `models.registry`; 1 where it is not of there.
        entry_point: name "module:function", for kind "python" alone; see `python_teacher`.
        classes: number K of classes, >= 2.
        class_names: names of the K classes in the order of the outputs, public: each 1 to 100 printable characters,
            distinct also without regard to case and space; None where they have none.
        none_class: whether the teacher has one output more, after the K classes, for "none of these classes".
        image_shape: shape (C, H, W) of the images that the teacher takes.
        resize: how pictures of another size are brought to `image_shape`: squash, crop or pad, see `data.resize`.
        normalisation: public constants, one per channel.
        probabilities: whether the model's outputs are probabilities already, by a softmax inside it.
        dataset_id: hash of the private images and labels trained on (`dataset_id`), for information: no budget depends
            on it; None where they are not known.
        train_size: number of private images that the teacher was fitted to, with its canaries but without those that
            were left out; None where the owner of an adopted teacher did not say.
        training: facts about how it was trained (kind, epochs, seed, seconds): no losses, no accuracies.
        weights_sha256: SHA-256 of the weights file.
        fingerprint: SHA-256 of everything that determines the teacher; one with an equal fingerprint may be reused.
        private_class_counts: number of those images in each class, by the label trained on; leaves the silo only by
            `policy.share_class_counts`. None exactly where `train_size` is.
        privacy: the training's differential-privacy claim, see `proof`; None where the training claims nothing.
        policy_sha256: SHA-256 of the `policy.yaml` that the silo was made with; a file with another hash was edited by
            its owner, and is left alone when the silo is made again.
    """

    format_version: Literal[2] = 2
    silo: SiloName
    population: Annotated[str, Field(min_length=1, max_length=120)]
    unit: Literal["record", "person"] = "record"
    origin: Literal["trained", "adopted"] = "adopted"
    kind: Annotated[str, OneOf(TEACHER_FORMATS)] = "torch"
    architecture: str
    width: Size
    entry_point: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    classes: Annotated[int, Field(ge=2)]
    class_names: tuple[str, ...] | None = None
    none_class: bool = False
    image_shape: tuple[Size, Size, Size]
    resize: Literal["squash", "crop", "pad"] = "squash"
    normalisation: Normalisation
    probabilities: bool = False
    dataset_id: DatasetId | None = None
    train_size: Size | None = None
    training: dict[str, Any]
    weights_sha256: Digest
    fingerprint: Digest
    private_class_counts: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    privacy: dict[str, Any] | None = None
    policy_sha256: Digest | None = None

    @property
    def outputs(self) -> int:
        """Number of the teacher's outputs: the K classes, and one more where it can say "none of these"."""
        return self.classes + self.none_class

    @model_validator(mode="before")
    @classmethod
    def _population_is_named(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and "population" not in tree and "silo" in tree:
            return tree | {"population": tree["silo"]}
        return tree

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Manifest:
        counts, channels = self.private_class_counts, self.image_shape[0]
        for key, name in (("silo", self.silo), ("population", self.population)):
            if not name.isprintable():
                raise ValueError(explain(key, name, "must be printable", "choose a name like 'clinic north'"))
        if (self.entry_point is not None) != (self.kind == "python"):
            raise ValueError(
                explain("entry_point", self.entry_point, "belongs to kind: python and to no other", "fix the manifest")
            )
        if self.class_names is not None and (fault := fault_of_class_names(self.class_names, self.classes)):
            raise ValueError(fault)
        if self.origin == "trained" and counts is None:
            raise ValueError(explain("private_class_counts", None, "are known of every training", "train it again"))
        if (counts is None) != (self.train_size is None) or (
            counts is not None and (len(counts) != self.classes or sum(counts) != self.train_size)
        ):
            raise ValueError(
                explain(
                    "private_class_counts",
                    counts,
                    f"must be {self.classes} counts that sum to train_size={self.train_size}",
                    "make the teacher again",
                )
            )
        for name, values in (("mean", self.normalisation.mean), ("std", self.normalisation.std)):
            if len(values) != channels:
                raise ValueError(
                    explain(f"normalisation.{name}", values, f"must have {channels} values", "give one per channel")
                )
        return self


def save_manifest(manifest: Manifest, folder: str | Path) -> None:
    """Writes `manifest.json`, whole or not at all."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    write_whole(Path(folder) / MANIFEST_FILE, text)


class OldManifest(Strict):
    """A manifest of format version 1, which knew no populations: read to be migrated, by nothing else.

    Attributes:
        format_version: 1.
        dataset_id: hash of the private records, or a name that the owner hashed; the key of its ledger.
        rest: every other field, as in `Manifest`.
    """

    format_version: Literal[1]
    dataset_id: DatasetId
    rest: dict[str, Any]

    @property
    def trained_here(self) -> bool:
        """Whether this project trained the teacher from a configuration, as far as the manifest shows it."""
        recipe, kind = self.rest.get("training"), self.rest.get("kind", "torch")
        configured = isinstance(recipe, dict) and {"epochs", "batch_size", "seed"} <= recipe.keys()
        own_hash = self.rest.get("fingerprint") == self.rest.get("weights_sha256")
        return configured and kind in ("torch", "shards") and not own_hash

    def migrated(self, population: str, unit: str) -> Manifest:
        """The same teacher's manifest in today's version.

        Args:
            population: name of the population whose records the silo holds.
            unit: what one guarantee protects.

        Raises:
            ConfigError: where a field does not fit.
        """
        origin = "trained" if self.trained_here else "adopted"
        new = {"format_version": 2, "population": population, "unit": unit, "origin": origin}
        known = self.dataset_id if self.trained_here else None  # an adopted one's may hash a name, and no records
        return validate(Manifest, self.rest | new | {"dataset_id": known}, MANIFEST_FILE)


def load_manifest(folder: str | Path) -> Manifest:
    """The manifest of the teacher in `folder`.

    Raises:
        ManifestError: where it is missing, unreadable, not JSON, of another version, or does not fit together.
    """
    path = Path(folder) / MANIFEST_FILE
    tree = _tree(path)
    if tree.get("format_version") == 1:
        why = f"{path} is of an earlier version, which counted a budget for each data set"
        remedy = f"name the population, which keeps what was spent: fedcpsc ledger migrate {folder} --population NAME"
        raise ManifestError(explain("format_version", 1, why, remedy))
    try:
        return validate(Manifest, tree, str(path))
    except ConfigError as error:  # the same checks and words, but it is the silo's owner who acts
        raise ManifestError(str(error)) from error


def load_old_manifest(folder: str | Path) -> OldManifest | None:
    """The manifest of format version 1 in `folder`, for migration; None where it is of a later version.

    Raises:
        ManifestError: where it is missing, unreadable, not JSON, or does not fit together.
    """
    path = Path(folder) / MANIFEST_FILE
    tree = _tree(path)
    if tree.get("format_version") != 1:
        return None
    settled = {name: tree.get(name) for name in ("format_version", "dataset_id")}
    rest = {name: value for name, value in tree.items() if name not in settled}
    try:
        old = validate(OldManifest, settled | {"rest": rest}, str(path))
        old.migrated("any", "record")
    except ConfigError as error:
        raise ManifestError(str(error)) from error
    return old


def _tree(path: Path) -> Tree:
    """The file's JSON object, unchecked."""
    try:
        tree = parse_json(path.read_bytes())
    except OSError as error:
        raise ManifestError(
            explain(
                "manifest", str(path), f"cannot be read ({error.strerror})", "make the teacher first, or fix the path"
            )
        ) from error
    except ValueError as error:
        remedy = "fix the file, or make the teacher again"
        raise ManifestError(explain("manifest", str(path), f"is not JSON ({error})", remedy)) from error
    if not isinstance(tree, dict):
        raise ManifestError(explain("manifest", str(path), "must be a JSON object", "make the teacher again"))
    return tree


def read_weights(folder: str | Path, manifest: Manifest) -> bytes:
    """The weights file's bytes, checked against the manifest; what is loaded is exactly what was checked.

    Raises:
        ManifestError: where the file is missing or is not the one the manifest speaks of.
    """
    path = Path(folder) / WEIGHTS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            explain("weights", str(path), f"cannot be read ({error.strerror})", "make the teacher again")
        ) from error
    found = sha256_hex(data)
    if found != manifest.weights_sha256:
        raise ManifestError(
            explain(
                "weights",
                str(path),
                f"has SHA-256 {found[:12]}..., the manifest says {manifest.weights_sha256[:12]}...",
                "restore the file that belongs to the manifest, or make the teacher again",
            )
        )
    return data


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def dataset_id(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> str:
    """`ds-` and a SHA-256 over the multiset of (image, label) records.

    The order of the records does not matter. It says which records a teacher saw; budgets belong to the population.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """
    whole = labels.astype("<i8")
    records = sorted(
        hashlib.sha256(label.tobytes() + image.tobytes()).digest() for image, label in zip(images, whole, strict=True)
    )
    digest = hashlib.sha256(repr(tuple(images.shape[1:])).encode())
    digest.update(b"".join(records))
    return f"ds-{digest.hexdigest()}"
