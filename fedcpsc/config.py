# SPDX-License-Identifier: Apache-2.0
"""The run's configuration.

A file in `configs/` holds only what differs from the defaults below. `load_config(path, overrides)` is the one way in;
`typed_yaml.save_config` writes every value, and loading that file again gives an equal object. No key names Python code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from fedcpsc.choices import AGGREGATION_RULES, DATA_SOURCES, DEFAULT_MIXTURE, PRIORS, check_mixture
from fedcpsc.class_names import is_class_name
from fedcpsc.errors import ConfigError, explain
from fedcpsc.typed_yaml import OneOf, Strict, load_as

__all__ = [
    "AggregationConfig",
    "BlockPersons",
    "ColumnPersons",
    "DataConfig",
    "EvaluationConfig",
    "FilePersons",
    "FolderPersons",
    "Mixture",
    "OutliersConfig",
    "OutputConfig",
    "PartitionConfig",
    "Precision",
    "QueriesConfig",
    "Resize",
    "RunConfig",
    "RuntimeConfig",
    "SilosConfig",
    "StudentConfig",
    "SynthesisConfig",
    "TeachersConfig",
    "load_config",
]

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Precision = Literal["float32", "bfloat16"]
_PUBLIC_CLASSES = ("pathological", "class_sets", "own_files")  # partitions that give a silo its classes by name
Resize = Literal["squash", "crop", "pad"]


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
    background: Annotated[str, Field(pattern=r"^(white|black|grey|#[0-9a-fA-F]{6})$")] = Field(
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
    label_sets: Literal["federation", "own"] = Field(
        "federation",
        description="classes of each teacher: federation: all of the source's, also those that its silo has no image of; own: only the silo's own classes, by partition pathological, class_sets or own_files",
    )
    policy: dict[str, Any] = Field(
        default_factory=dict, description="fields of policy.yaml, checked when the silos are made"
    )
    policies: tuple[dict[str, Any], ...] = Field(
        (), description="fields that replace those of policy where owners differ, dealt round-robin to the silos"
    )


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
        "convnet", description="one name for all silos, or a list dealt round-robin"
    )
    width: Positive = Field(24, description="width of the networks; the meaning is that of student.width")
    epochs: Positive = Field(20, description="passes over the silo's images")
    batch_size: Positive = Field(
        64,
        description="images in a batch; by DP-SGD the expected number of records (of persons, where they are the unit)",
    )
    learning_rate: Rate = Field(2e-3, description="learning rate of the optimiser that teachers.training names")
    weight_decay: Weight = Field(5e-4, description="weight decay of the same optimiser; not used by DP-SGD")
    shift: Annotated[int, Field(ge=0)] = Field(1, description="random shift in pixels during training")
    flip: bool = Field(False, description="random horizontal flips during training")
    training: dict[str, Any] = Field(
        default_factory=lambda: {"kind": "plain"},
        description="kind of training and its fields, checked when the silos are made",
    )
    outliers: OutliersConfig | None = None


class QueriesConfig(Strict):
    """What the server asks for; the silo's own policy decides what it gets."""

    answers_per_silo: Positive = Field(5000, description="images answered by each silo over the whole run")
    rounds: Positive = Field(20, description="how often the server asks; the answers are spread over the rounds")
    form: Literal["best", "probabilities", "top_k", "label"] = Field(
        "probabilities",
        description="answer form asked for, which each silo's policy must offer; best asks each silo for the richest it offers",
    )
    recipes: bool = Field(
        False,
        description="send what images are made from instead of them, to silos whose policy takes it: fewer bytes, more work for them; the generator's projection then stays as drawn, and its other weights are rounded to 16 bits",
    )
    max_megabytes: Rate = Field(
        16.0,
        description="most bytes of a query's images, in megabytes of 10^6 bytes, beside each silo's own images_per_query; one image is always sent",
    )
    hello_timeout_s: Rate = Field(120.0, description="wait so long for the silos to join")
    deadline_s: Rate = Field(600.0, description="wait so long for a round's answers")
    quorum: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="share of the silos that must join, and answer each round; a silo that missed a deadline while so many had answered is not waited for until it replies",
    )
    ahead: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None,
        description="queries that may be outstanding while the server goes on to later rounds; null: 0, in a deployment 2",
    )
    in_flight: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="queries sent to a silo before its first reply; null: 1, in a deployment 2"
    )
    waiting_goal: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="share of the server's time spent waiting above which several rounds share a query; null: 1 (never), in a deployment 0.05",
    )

    @model_validator(mode="after")
    def _a_round_asks_something(self) -> QueriesConfig:
        if self.rounds > self.answers_per_silo:
            raise ValueError(
                explain("rounds", self.rounds, f"must be <= answers_per_silo={self.answers_per_silo}", "lower rounds")
            )
        return self


class SynthesisConfig(Strict):
    """Where the query images come from: a conditional generator and a procedural prior."""

    prior: Mixture = Field(
        default_factory=lambda: dict.fromkeys(DEFAULT_MIXTURE, 1.0),
        description="weights of the priors to mix; the default mixes them evenly, because nobody knows what the silos hold",
    )
    prior_share: Share = Field(
        0.9,
        description="share of each round's images drawn from the prior, the others from the generator; the first rounds are all prior",
    )
    warmup_share: Share = Field(0.1, description="share of the rounds before the generator joins")
    latent: Positive = Field(64, description="length of the generator's noise vector")
    width: Positive = Field(16, description="channels of the generator")
    steps: Positive = Field(15, description="generator steps a round, on a freshly initialised generator")
    batch_size: Annotated[int, Field(ge=2)] = Field(64, description="images a generator step; batch norm needs two")
    learning_rate: Rate = Field(2e-3, description="learning rate of the generator's Adam")
    shift: Annotated[int, Field(ge=0)] = Field(
        1, description="random shift in pixels before the committee sees a generated image"
    )
    class_weight: Weight = Field(1.0, description="cross-entropy of the committee's logits on y")
    balance_weight: Weight = Field(5.0, description="negative entropy of the batch-mean prediction")
    moment_weight: Weight = Field(5.0, description="match mean and std of the public normalisation constants")
    contrastive_weight: Weight = Field(0.0, description="supervised contrast over the committee's views (SupCon)")
    candidates: Positive = Field(
        8,
        description="images made per image asked; of each class the committee sees in them, those it is least sure of are asked",
    )
    moments: tuple[float, float] | None = Field(
        None, description="public mean and std of pixels scaled to [-1, 1]; null: no moment loss"
    )
    precision: Precision = Field(
        "float32",
        description="floating-point format of passes through generator and committee while images are invented",
    )


class StudentConfig(Strict):
    """The product, and how it is fitted to the answer bank."""

    architecture: str = Field(
        "convnet", description="a name of fedcpsc.models.registry; an unknown one is refused with the list"
    )
    width: Positive = Field(
        32,
        description="channels of the first stage of convnet, convnet_gn and resnet18_narrow; the others have their published widths",
    )
    committee: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="networks that guide the generator; the first is the student"
    )
    steps_per_round: Positive | None = Field(
        None,
        description="steps on the bank after each round, for every network of the committee; null: 40, or 0.16 per image of the round where that is more",
    )
    final_steps: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="steps of the student alone on the whole bank, after the last round; null: 3000, or 0.6 per answer where that is more",
    )
    batch_size: Positive = Field(64, description="banked images a step")
    fresh_share: Share = Field(0.3, description="share of each student batch drawn from the newest answers")
    learning_rate: Rate = Field(2e-3, description="learning rate of Adam; falls to zero in the final fit")
    weight_decay: Weight = Field(0.0, description="weight decay of Adam")
    shift: Annotated[int, Field(ge=0)] = Field(1, description="random shift of student inputs in pixels")
    flip: bool = Field(
        False, description="random horizontal flips of student inputs, where a mirror image is of the same class"
    )
    average: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="decay of the exponential average of the student's weights in the final fit; 0 takes the last weights",
    )
    noise: Weight = Field(0.0, description="std of Gaussian noise added to student inputs in [-1, 1]")
    contrastive_weight: Weight = Field(
        0.0, description="supervised contrast over two student views, classes from the answers (SupCon)"
    )
    contrastive_temperature: Rate = Field(0.07, description="temperature of the contrastive loss")
    precision: Precision = Field(
        "float32",
        description="floating-point format of passes in the fit; bfloat16 is faster where the machine has it, weights and losses stay float32",
    )


class AggregationConfig(Strict):
    """How many silos' answers become one soft target."""

    rule: Annotated[str, OneOf(AGGREGATION_RULES)] = Field(
        "uniform", description="rule that makes one soft target of the silos' answers to an image"
    )
    smoothing: Rate = Field(1e-4, description="number added to probabilities before their logarithm")
    denoise: bool = Field(
        True, description="estimate the probabilities without noise, from the noise that each silo states"
    )
    aliases: dict[str, str] = Field(
        default_factory=dict,
        description="the federation's name of a class by a silo's own word for it, as {feline: cat}; silos' classes are told apart by name",
    )

    @field_validator("aliases")
    @classmethod
    def _aliases_are_names(cls, aliases: dict[str, str]) -> dict[str, str]:
        for word, name in aliases.items():
            if not (is_class_name(word) and is_class_name(name)):
                constraint = "both must be names of classes: 1 to 100 printable characters without space at the ends"
                raise ValueError(explain("aliases", f"{word}: {name}", constraint, "fix the name"))
            if name in aliases:
                constraint = f"{name!r} is replaced itself" if name != word else "replaces a word by itself"
                raise ValueError(explain("aliases", f"{word}: {name}", constraint, "name the last word, or none"))
        return aliases


class EvaluationConfig(Strict):
    """Held-out real images, where the run has any. They never steer training."""

    held_out: bool = Field(True, description="measure on held-out images; false where nobody has any")
    every: Positive = Field(1, description="evaluate the student every so many rounds")
    batch_size: Positive = Field(500, description="images a forward pass")


class OutputConfig(Strict):
    """Where the run leaves its results."""

    root: str = Field("runs", description="folder of run folders, relative to the working directory")
    name: str = Field("digits", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$", description="name of the run's folder")
    alarm_entropy: Share = Field(0.5, description="alarm when the bank's normalised class entropy falls below this")
    tensorboard: bool = Field(False, description="also write event files for TensorBoard, into the run's folder")
    log_format: Literal["text", "json"] | None = Field(
        None,
        description="lines of the server's log; where null $FEDCPSC_LOG says, and without it only warnings are logged",
    )


class RuntimeConfig(Strict):
    """The server's machine; changes speed, never the meaning of a run."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    threads: Annotated[int, Field(ge=0)] = Field(0, description="torch threads; 0 leaves torch's choice")
    processes: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="number of processes that share every batch of the student's fit, each with a GPU of its own; must divide student.batch_size",
    )


class RunConfig(Strict):
    """All of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        1, description="seed of everything random except what protects privacy, which is never seeded"
    )
    data: DataConfig = DataConfig()
    silos: SilosConfig = SilosConfig()
    teachers: TeachersConfig = TeachersConfig()
    queries: QueriesConfig = QueriesConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    student: StudentConfig = StudentConfig()
    aggregation: AggregationConfig = AggregationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: OutputConfig = OutputConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _processes_share_a_batch_evenly(self) -> RunConfig:
        processes, batch = self.runtime.processes, self.student.batch_size
        if batch % processes:
            constraint = f"must divide student.batch_size={batch}"
            raise ValueError(explain("runtime.processes", processes, constraint, "change either"))
        return self

    @model_validator(mode="after")
    def _classes_fit_the_partition(self) -> RunConfig:
        kind = self.silos.partition.kind
        if self.silos.label_sets == "own" and kind not in _PUBLIC_CLASSES:
            constraint = (
                f"by partition {kind} single records decide which classes a silo has, and label sets are public"
            )
            raise ValueError(explain("silos.label_sets", "own", constraint, f"use {', '.join(_PUBLIC_CLASSES)}"))
        if self.data.classes is not None and kind == "own_files":
            constraint = "chooses classes of one source, and each silo has own files"
            raise ValueError(explain("data.classes", self.data.classes, constraint, "leave the other folders out"))
        return self

    @model_validator(mode="after")
    def _recipes_name_priors_that_every_silo_has(self) -> RunConfig:
        own = sorted(set(self.synthesis.prior) - set(PRIORS.built_in()))
        if self.queries.recipes and own:
            constraint = f"silos would have to draw the priors {', '.join(own)} themselves, which only this machine has"
            remedy = "set queries.recipes: false, or mix fedcpsc's own priors alone"
            raise ValueError(explain("queries.recipes", True, constraint, remedy))
        return self

    def in_deployment(self) -> RunConfig:
        """With the queries' blanks filled in for real nodes, where a message costs seconds: rounds overlap."""
        usual = {"ahead": 2, "in_flight": 2, "waiting_goal": 0.05}
        blank = {key: value for key, value in usual.items() if getattr(self.queries, key) is None}
        return self.model_copy(update={"queries": self.queries.model_copy(update=blank)})

    @property
    def steps_per_round(self) -> int:
        """`student.steps_per_round` with its blank filled in: a larger budget is passed over as often as a small one."""
        images = self.queries.answers_per_silo / self.queries.rounds
        return self.student.steps_per_round or max(40, round(0.16 * images))

    @property
    def final_steps(self) -> int:
        """`student.final_steps` with its blank filled in, likewise."""
        given = self.student.final_steps
        return max(3000, round(0.6 * self.queries.answers_per_silo)) if given is None else given


def load_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Reads a run's YAML file, applies `a.b=c` overrides, checks everything.

    Raises:
        ConfigError: naming the key or value, the constraint and the remedy.
    """
    return load_as(RunConfig, path, overrides)
