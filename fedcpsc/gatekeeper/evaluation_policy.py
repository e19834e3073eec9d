# SPDX-License-Identifier: Apache-2.0
"""The part of a silo's policy by which students are judged on held-out images of its own. Off where it is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from fedcpsc.errors import explain
from fedcpsc.gatekeeper.mechanisms.sections import Scale, exactly
from fedcpsc.silo_config import Background, ColumnPersons, DataConfig, FilePersons, FolderPersons
from fedcpsc.typed_yaml import Strict

if TYPE_CHECKING:
    from fedcpsc.privacy.counting import ExactCounts, NoisyCounts

__all__ = ["EvaluationPolicy", "HeldOutImages"]

_HISTOGRAMS_PER_CLASS = 4  # the right ones in all; by class the images, the right ones and what the student says


class HeldOutImages(Strict):
    """Where the owner's held-out labelled images are: no image of them may have been trained on.

    Attributes:
        source: form of the images, as in `data.source`: picture files in folders of their classes, or parquet.
        path: folder of the source; a relative one is in the silo's folder.
        split: split of the source that is read: `test/` or test.parquet; or train, of a source that holds nothing but
            held-out images, which alone can name persons.
        image_column, label_column: columns of a parquet file.
        classes: names of the classes that are used; null: all, which must be classes of the silo.
        background: colour behind what is transparent, and of borders, as in `data.background`.
        skip_damaged: whether pictures that cannot be decoded are left out, instead of refused.
        persons: place that names the person behind each image, as in `data.persons`; needed where persons are
            protected.
    """

    source: Literal["folder", "parquet"] = "folder"
    path: Annotated[str, Field(min_length=1)]
    split: Literal["test", "train"] = "test"
    image_column: str = "image"
    label_column: str = "label"
    classes: tuple[str, ...] | None = None
    background: Background = "white"
    skip_damaged: bool = False
    persons: Annotated[ColumnPersons | FolderPersons | FilePersons, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def _persons_are_of_a_training_split(self) -> HeldOutImages:
        if self.persons is not None and self.split != "train":
            constraint = "names persons of a training split alone"
            remedy = "lay the images as train/ or train.parquet in a folder of their own, and set split: train"
            raise ValueError(explain("persons", self.persons.kind, constraint, remedy))
        self.as_data()
        return self

    def as_data(self) -> DataConfig:
        """The same as the section `data` that the readers of pictures take."""
        return DataConfig(
            source=self.source,
            path=self.path,
            background=self.background,
            skip_damaged=self.skip_damaged,
            classes=self.classes,
            image_column=self.image_column,
            label_column=self.label_column,
            persons=self.persons,
        )


class EvaluationPolicy(Strict):
    """Whether, how often, and with how much noise students are judged on images that the owner keeps from training.

    Attributes:
        evaluations: number of evaluations over all time: of the ledger, all its runs, and all sets of images.
        sigma: standard deviation of the noise on each number, in images; must be there under a dp mechanism, and null
            elsewhere: noise without a guarantee promises nothing.
        per_class: whether numbers are also told class by class: how many images there are, how many are right, and how
            often the student says the class. With noise an evaluation then costs four times as much.
        images_per_person: most images of one person that are counted, which the noise must cover; of a person with
            more, the first ones are. Not used where records are protected.
        public_size: whether the number of held-out images is public: it is then told to everybody who connects, and
            without it a server cannot say how good a student is. No noise covers it.
        max_megabytes: largest student that is taken, in megabytes (10^6 bytes) of its weights.
        images: held-out images; null takes what `silos.held_out` has put into the folder `held_out` of the silo.
    """

    evaluations: Annotated[int, Field(ge=1, le=1_000_000)]
    sigma: Scale | None = None
    per_class: bool = False
    images_per_person: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    public_size: bool = False
    max_megabytes: Annotated[float, Field(gt=0, le=4096)] = 64.0
    images: HeldOutImages | None = None

    @model_validator(mode="after")
    def _size_is_hidden_or_told(self) -> EvaluationPolicy:
        if self.per_class and self.sigma is None and not self.public_size:
            constraint = "tells the number of held-out images, class by class and exactly, and public_size is false"
            raise ValueError(explain("per_class", True, constraint, "set public_size: true, or per_class: false"))
        return self

    @property
    def max_bytes(self) -> int:
        """Largest student, in bytes, >= 1."""
        return max(1, int(self.max_megabytes * 1e6))

    def images_per_unit(self, unit: str) -> int:
        """Most images that one unit of protection can contribute, >= 1.

        Args:
            unit: what is protected, `record` or `person`.
        """
        return self.images_per_person if unit == "person" else 1

    def mechanism(self, unit: str) -> ExactCounts | NoisyCounts:
        """What is done to counts before they leave the silo.

        Args:
            unit: what is protected, `record` or `person`.
        """
        from fedcpsc.privacy.counting import ExactCounts, NoisyCounts  # noqa: PLC0415 - brings mpmath

        if self.sigma is None:
            return ExactCounts()
        histograms = _HISTOGRAMS_PER_CLASS if self.per_class else 1
        return NoisyCounts(exactly(self.sigma), self.images_per_unit(unit), histograms)
