# SPDX-License-Identifier: Apache-2.0
"""The sections of a run's configuration from which silos are made: data, silos, teachers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fedcpsc.choices import DATA_SOURCES, DEFAULT_MIXTURE, PRIORS, check_mixture
from fedcpsc.errors import ConfigError, explain
from fedcpsc.pretrained_normalisation import NamedNormalisation
from fedcpsc.typed_yaml import OneOf, Positive, Rate, Share, Strict, Weight

__all__ = [
    "Background",
    "BlockPersons",
    "ColumnPersons",
    "DataConfig",
    "FilePersons",
    "FolderPersons",
    "Mixture",
    "OutliersConfig",
    "PartitionConfig",
    "Resize",
    "SilosConfig",
    "TeachersConfig",
]

Resize = Literal["squash", "crop", "pad"]
Background = Annotated[str, Field(pattern=r"^(white|black|grey|#[0-9a-fA-F]{6})$")]


def _mixed(mixture: dict[str, float]) -> dict[str, float]:
    try:
        check_mixture(mixture)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return mixture


Mixture = Annotated[dict[Annotated[str, OneOf(PRIORS)], Weight], AfterValidator(_mixed)]
"""Weights of priors."""


class ColumnPersons(Strict):
    """Persons named by a column of the parquet files. Where `data.persons` is null, every record stands for itself."""

    kind: Literal["column"] = "column"
    column: Annotated[str, Field(min_length=1)] = Field(
        description="name of the column with each record's person: integers or text, compared as text (7 and '7' are one person, '07' is another)"
    )


class FolderPersons(Strict):
    """Persons named by folders: `train/<class>/<person>/<picture>`; one name below several classes is one person."""

    kind: Literal["folder"] = "folder"


class FilePersons(Strict):
    """Persons named by a CSV file with a line for every training record, for parquet and folder sources."""

    kind: Literal["file"] = "file"
    file: Annotated[str, Field(min_length=1)] = Field(
        description="path of the CSV file below the source's folder (with own_files below each silo's); its header is `picture,person` (folder: path below train/, as cat/001.png) or `row,person` (parquet: row number over all files in order, from 0)"
    )


class BlockPersons(Strict):
    """Invented persons, for experiments alone: consecutive records of a simulated silo, taken after the dealing."""

    kind: Literal["blocks"] = "blocks"
    size: Positive = Field(description="number of records of each invented person; a silo's last one may have fewer")


class DataConfig(Strict):
    """The private images, as they lie before they are dealt to the simulated silos.

    `persons` says which training records are of one person, who is then protected as a whole and lies in one silo alone;
    null: every record stands for itself.
    """

    source: Annotated[str, OneOf(DATA_SOURCES)] = Field(
        "digits", description="source of the images; none is downloaded"
    )
    path: str | None = Field(
        None,
        description="folder with train.parquet/test.parquet, train/ and test/, or torchvision's root; $FEDCPSC_DATA where null",
    )
    image_size: Annotated[int, Field(ge=4, le=512)] | None = Field(
        None, description="resize to a square of this side; null keeps the size"
    )
    resize: Resize = Field(
        "squash",
        description="squash: the whole picture, each side scaled by itself; crop: the middle of it, where the subject fills the middle; pad: the whole picture in its own proportions with borders, where proportions tell classes apart",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="convert to grey or colour; null keeps what the files have"
    )
    background: Background = Field(
        "white",
        description="colour behind what is transparent in a picture, and of borders by resize: pad: white, black, grey, or '#rrggbb' in quotes",
    )
    skip_damaged: bool = Field(
        False,
        description="leave out pictures that cannot be decoded and rows without a label, and say how many; false: they are an error that names them",
    )
    classes: tuple[str, ...] | None = Field(
        None,
        description="use only these classes of the source, by name (by number, in quotes, where it has no names) and in this order; null: all",
    )
    train_limit: Positive | None = Field(
        None,
        description="use only so many training images, drawn by the seed: single images, also where data.persons names persons",
    )
    test_limit: Positive | None = Field(None, description="use only so many evaluation images, drawn by the seed")
    test_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.28,
        description="held-out share, only where the source brings no test split (digits, folder without test/); a share of the persons where data.persons names them",
    )
    validation: Annotated[int, Field(ge=0)] = Field(
        0,
        description="keep so many training images from every silo and measure on them instead of the test split: for choosing settings; whole persons where data.persons names them, hence at least so many",
    )
    image_column: str = Field("image", description="parquet: the column of images")
    label_column: str = Field("label", description="parquet: the column of class numbers")
    persons: ColumnPersons | FolderPersons | FilePersons | BlockPersons | None = Field(
        None,
        discriminator="kind",
        description="place that names the persons behind the training records; null: every record stands for itself",
    )

    @model_validator(mode="after")
    def _persons_fit_the_source(self) -> DataConfig:
        persons = self.persons
        takes = {"column": ("parquet",), "folder": ("folder",), "file": ("parquet", "folder")}
        if persons is None or persons.kind == "blocks":
            return self
        if self.source not in takes[persons.kind]:
            constraint = (
                f"names persons of {' and '.join(takes[persons.kind])} sources alone, this one is {self.source}"
            )
            raise ValueError(explain("data.persons.kind", persons.kind, constraint, "choose another kind or source"))
        if persons.kind == "column" and persons.column in (self.image_column, self.label_column):
            constraint = "is already the column of images or of labels"
            remedy = "name the column with the persons' ids"
            raise ValueError(explain("data.persons.column", persons.column, constraint, remedy))
        return self


class PartitionConfig(Strict):
    """How the private images are dealt to simulated silos (flwr-datasets' partitioners).

    Where `data.persons` names persons, whole persons are dealt, each by its most frequent class.
    """

    kind: Literal["iid", "dirichlet", "shards", "pathological", "class_sets", "own_files"] = Field(
        "dirichlet",
        description="own_files: each silo reads its own folder below data.path; the others deal one source's images",
    )
    alpha: float = Field(0.3, description="Dirichlet concentration, > 0; smaller is more skewed")
    min_size: Annotated[int, Field(ge=1)] = Field(
        20,
        description="Dirichlet: draw again until every silo has so many images, or persons where data.persons names them",
    )
    shards_per_silo: Positive = Field(
        2, description="shards: images sorted by class and cut; each silo gets at most so many pieces"
    )
    classes_per_silo: Positive = Field(2, description="pathological: each silo sees only so many classes")
    parts: Positive | None = Field(
        None,
        description="number of parts that the images are dealt in, of which the silos hold the first silos.count: so that silos can join later without a change to the others; null: silos.count",
    )
    class_sets: tuple[tuple[str, ...], ...] = Field(
        (),
        description="class_sets: names of the classes that each silo holds, dealt round-robin to the silos; the images of a class are shared evenly by the silos that hold it",
    )

    @model_validator(mode="after")
    def _class_sets_belong_to_their_kind(self) -> PartitionConfig:
        if bool(self.class_sets) != (self.kind == "class_sets"):
            constraint = "belongs to kind: class_sets, which needs it"
            raise ValueError(explain("class_sets", self.class_sets, constraint, "give both or neither"))
        return self

    @model_validator(mode="after")
    def _alpha_is_positive(self) -> PartitionConfig:
        if self.alpha <= 0:
            raise ValueError(
                explain("alpha", self.alpha, "must be > 0", "use 0.1 for strong skew, 100 for almost none")
            )
        return self


class SilosConfig(Strict):
    """The simulated silos; `policy` is what their owners write into their policy.yaml."""

    count: Annotated[int, Field(ge=1, le=10_000)] = Field(
        3, description="how many silos there are; in a deployment, how many are waited for"
    )
    root: str = Field("silos", description="folder of the silos' folders, relative to the working directory")
    population: Annotated[str, Field(min_length=1, max_length=120)] = Field(
        "{silo}",
        description="name of the population whose records a silo holds, for which its budget is kept; {silo} stands for the silo's name",
    )
    partition: PartitionConfig = PartitionConfig()
    held_out: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of each silo's images (of its persons, where data.persons names them) that is kept from training, in the folder held_out of the silo, to evaluate students on where its policy has a section evaluation; each falls to it by a hash of itself, so that the number varies",
    )
    label_sets: Literal["federation", "own"] = Field(
        "federation",
        description="classes of each teacher: federation: all of the source's, also those that its silo has no image of; own: only the silo's own classes, by partition pathological, class_sets or own_files",
    )
    policy: dict[str, Any] = Field(
        default_factory=dict,
        description="fields of policy.yaml, checked when the silos are made; where it does not say, share_answers is true, and false where one silo is made alone (--silo)",
    )
    policies: tuple[dict[str, Any], ...] = Field(
        (), description="fields that replace those of policy where owners differ, dealt round-robin to the silos"
    )

    @model_validator(mode="after")
    def _each_silo_has_a_part(self) -> SilosConfig:
        parts, own_files = self.partition.parts, self.partition.kind == "own_files"
        if parts is not None and (own_files or parts < self.count):
            constraint = "belongs to images that are dealt" if own_files else f"must be >= silos.count={self.count}"
            raise ValueError(explain("partition.parts", parts, constraint, "raise it, or leave it out"))
        return self

    @property
    def parts(self) -> int:
        """`partition.parts` with its blank filled in: number of parts that dealt images are dealt in, >= `count`."""
        return self.partition.parts or self.count


class OutliersConfig(Strict):
    """Public pictures from which a teacher learns one output more, "none of my classes"; null: it has none.

    For silos that hold different classes: each then counts by how sure it is that an image is of its own. `{}` takes
    the defaults.
    """

    share: Annotated[float, Field(gt=0, le=0.9)] = Field(
        0.33, description="their share of a batch; they come in addition to teachers.batch_size"
    )
    weight: Rate = Field(
        0.2, description="weight of their mean loss beside that of the private images, which has weight 1"
    )
    none: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.9,
        description="probability of none that the teacher is to give them; near 1 its answers to invented images say little of the classes",
    )
    photographs: Share = Field(
        0.5, description="share of them cut from the two photographs of scikit-learn; the others are drawn from prior"
    )
    prior: Mixture = Field(
        default_factory=lambda: dict.fromkeys(DEFAULT_MIXTURE, 1.0), description="weights of the priors to mix"
    )
    count: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20_000, description="number of different pictures, made before the training; fewer where they would pass 256 MB"
    )


class TeachersConfig(Strict):
    """How each simulated silo trains its private teacher."""

    architecture: str | tuple[str, ...] = Field(
        "convnet",
        description="one name for all silos, or a list dealt round-robin; with weights also torchvision/NAME or timm/NAME",
    )
    width: Positive = Field(24, description="width of the networks; the meaning is that of student.width")
    weights: str | None = Field(
        None,
        description="path of a file of public pretrained weights that every teacher starts from: safetensors, or a state dict of torch.save; null starts from a random initialisation",
    )
    normalisation: NamedNormalisation = None
    frozen: bool = Field(
        False,
        description="whether all but the head stays as the weights have it; only the last linear layer is then trained",
    )
    epochs: Positive = Field(20, description="passes over the silo's images")
    batch_size: Positive = Field(
        64,
        description="images in a batch; by DP-SGD the expected number of records (of persons, where they are the unit)",
    )
    learning_rate: Rate = Field(2e-3, description="learning rate of the optimiser that teachers.training names")
    weight_decay: Weight = Field(5e-4, description="weight decay of the same optimiser; not used by DP-SGD")
    shift: Annotated[int, Field(ge=0)] = Field(1, description="random shift in pixels during training")
    flip: bool = Field(False, description="random horizontal flips during training")
    precision: Literal["float32", "bfloat16"] | None = Field(
        None,
        description="floating-point format of passes in plain and sharded training, weights and losses stay float32; null: bfloat16 on a GPU, float32 on a CPU",
    )
    training: dict[str, Any] = Field(
        default_factory=lambda: {"kind": "plain"},
        description="kind of training and its fields, checked when the silos are made",
    )
    outliers: OutliersConfig | None = None

    @model_validator(mode="after")
    def _frozen_has_weights_and_still_images(self) -> TeachersConfig:
        if self.frozen and self.weights is None:
            constraint = "keeps the weights that teachers.weights names, and there are none"
            raise ValueError(explain("frozen", True, constraint, "set teachers.weights, or leave it out"))
        if self.frozen and (self.shift or self.flip):
            constraint = (
                f"computes features once, of images that are not moved: shift is {self.shift}, flip {self.flip}"
            )
            raise ValueError(explain("frozen", True, constraint, "set teachers.shift: 0 and teachers.flip: false"))
        return self
