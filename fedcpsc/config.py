# SPDX-License-Identifier: Apache-2.0
"""The run's configuration.

A file in `configs/` holds only what differs from the defaults below. `load_config(path, overrides)` is the one way in;
`typed_yaml.save_config` writes every value, and loading that file again gives an equal object. No key names Python code.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fedcpsc.choices import AGGREGATION_RULES, DEFAULT_MIXTURE, PRIORS
from fedcpsc.class_names import is_class_name
from fedcpsc.errors import explain
from fedcpsc.public_config import PublicConfig
from fedcpsc.silo_config import DataConfig, Mixture, SilosConfig, TeachersConfig
from fedcpsc.student_config import Precision, StudentConfig
from fedcpsc.typed_yaml import OneOf, Positive, Rate, Share, Strict, Weight, load_as

__all__ = [
    "AggregationConfig",
    "EvaluationConfig",
    "OutputConfig",
    "Precision",
    "QueriesConfig",
    "RunConfig",
    "RuntimeConfig",
    "StudentConfig",
    "SynthesisConfig",
    "load_config",
]

_PUBLIC_CLASSES = ("pathological", "class_sets", "own_files")  # partitions that give a silo its classes by name


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
    start_from: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="folder of an earlier run whose images and answers this one begins with, as --from sets it: answers_per_silo counts its images too, rounds are those of the new images, and silos.count is the number of silos that join now; null: none",
    )

    @model_validator(mode="after")
    def _a_round_asks_something(self) -> QueriesConfig:
        if self.rounds > self.answers_per_silo:
            raise ValueError(
                explain("rounds", self.rounds, f"must be <= answers_per_silo={self.answers_per_silo}", "lower rounds")
            )
        return self


class SynthesisConfig(Strict):
    """Where the query images come from: a procedural prior, a conditional generator, the server's own pictures."""

    prior: Mixture = Field(
        default_factory=lambda: dict.fromkeys(DEFAULT_MIXTURE, 1.0),
        description="weights of the priors to mix; the default mixes them evenly, because nobody knows what the silos hold",
    )
    prior_share: Share = Field(
        0.9,
        description="share of each round's images drawn from the prior, the others from the generator; the first rounds are all prior",
    )
    public: PublicConfig | None = Field(
        None, description="the server's own unlabelled pictures, as a further source of query images; null: it has none"
    )
    public_share: Share = Field(
        0.5,
        description="share of each round's images drawn from the public pictures, where there are any; prior_share is of the others",
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
        None,
        description="public mean and std of the domain's pixels scaled to [-1, 1], to which the priors' tones are bent and the generator is held; null: nobody knows them",
    )
    find_tones: bool = Field(
        True,
        description="whether the silos' answers to the first images say how light the others are to be, beginning at moments where they are given; false: as moments say, or as the priors draw them",
    )
    precision: Precision | None = Field(
        None,
        description="floating-point format of passes through generator and committee while images are invented; null as for student.precision",
    )


class AggregationConfig(Strict):
    """How many silos' answers become one soft target."""

    rule: Annotated[str, OneOf(AGGREGATION_RULES)] = Field(
        "uniform", description="rule that makes one soft target of the silos' answers to an image"
    )
    robust: bool = Field(
        True,
        description="judge silos by their answers, and let one that the others contradict count for less or nothing; needs three silos",
    )
    smoothing: Rate | None = Field(
        None,
        description="number added to probabilities before their logarithm, against the veto of a single silo; null: 1e-4, or 1/K for K classes where silos are judged",
    )
    denoise: bool = Field(
        True, description="estimate the probabilities without noise, from the noise that each silo states"
    )
    max_classes: Annotated[int, Field(ge=2, le=2**16)] = Field(
        1000,
        description="most classes that a silo may have, and that all silos may have together; a silo with more is not let in",
    )
    aliases: dict[str, str] = Field(
        default_factory=dict,
        description="the federation's name of a class by a silo's own word for it, as {feline: cat}; silos' classes are told apart by name",
    )

    exclude: tuple[str, ...] = Field(
        (),
        description="names of silos that are left out, as [silo-3]: not asked, not waited for, and what they answered is not used; may be changed with --resume, which then fits the student anew",
    )

    @field_validator("exclude")
    @classmethod
    def _names_are_given_once(cls, exclude: tuple[str, ...]) -> tuple[str, ...]:
        for name in exclude:
            if not name or exclude.count(name) > 1:
                raise ValueError(explain("exclude", list(exclude), "must be names of silos, each once", "fix the list"))
        return exclude

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
    at_silos: bool = Field(
        False,
        description="ask each silo that offers it, after the final fit, how many held-out images of its own the student classifies rightly; what that costs a silo, its policy says",
    )
    logit_adjustments: Annotated[int, Field(ge=0, le=10)] = Field(
        3,
        description="number of times that other class biases of the student are tried, so that it says each class as often as the silos' held-out images have it, where silos that evaluate it tell their counts class by class; each takes one more evaluation of each of these silos, and is kept only where the silos then call more images right",
    )
    every: Positive | None = Field(
        None,
        description="evaluate the student every so many rounds; null: after each where that takes at most some 5 % of the run's work, counted in images that pass through networks, else so rarely; up to 1,000 held-out images after each",
    )
    batch_size: Positive | None = Field(
        None,
        description="images a forward pass; null: 64 on a CPU, whose cache they fit, of large ones fewer; 512 on a GPU",
    )


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
    compile: bool = Field(
        False,
        description="compile the passes of the student's fit by torch.compile, on a GPU with CUDA graphs: worth it for long fits; results differ by float rounding",
    )
    tf32: bool = Field(
        False,
        description="let a GPU round float32 factors to 10 bits (TF32) in convolutions and products, which torch does by default in convolutions: faster; false keeps float32 what it says",
    )
    emulation: bool = Field(
        False,
        description="compute in bfloat16 also where the machine has no instructions for it, slower than in float32: to go on with another machine's run, say",
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
        if self.runtime.compile and processes > 1:
            constraint = f"is for one process, and runtime.processes is {processes}"
            raise ValueError(explain("runtime.compile", True, constraint, "set either to its default"))
        return self

    @model_validator(mode="after")
    def _the_warm_up_ends(self) -> RunConfig:
        warmup, total = self.student.warmup_steps, self.final_steps
        if warmup and warmup >= total:
            constraint = f"must be less than the {total} steps of the final fit (student.final_steps)"
            raise ValueError(explain("student.warmup_steps", warmup, constraint, "lower it"))
        return self

    @model_validator(mode="after")
    def _a_silo_remains(self) -> RunConfig:
        exclude, count = self.aggregation.exclude, self.silos.count
        if len(exclude) >= count and self.queries.start_from is None:  # else silos may be excluded that have left
            constraint = f"excludes every one of silos.count={count} silos"
            raise ValueError(explain("aggregation.exclude", list(exclude), constraint, "leave at least one"))
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

    @model_validator(mode="after")
    def _public_pictures_are_sent(self) -> RunConfig:
        if self.queries.recipes and self.synthesis.public is not None:
            constraint = "a silo cannot make the server's own pictures (synthesis.public) from a recipe"
            raise ValueError(explain("queries.recipes", True, constraint, "set queries.recipes: false"))
        return self

    def in_deployment(self) -> RunConfig:
        """With the queries' blanks filled in for real nodes, where a message costs seconds: rounds overlap."""
        usual = {"ahead": 2, "in_flight": 2, "waiting_goal": 0.05}
        blank = {key: value for key, value in usual.items() if getattr(self.queries, key) is None}
        return self.model_copy(update={"queries": self.queries.model_copy(update=blank)})

    def of_remaining_silos(self, gone: Collection[str] = ()) -> RunConfig:
        """As it is for the silos that are not excluded: there are so many fewer.

        Args:
            gone: names of silos that `silos.count` does not count: those of an earlier run that have not joined this one.
        """
        left = self.silos.count - len(set(self.aggregation.exclude) - set(gone))
        return self.model_copy(update={"silos": self.silos.model_copy(update={"count": left})})

    @property
    def steps_per_round(self) -> int:
        """`student.steps_per_round` with its blank filled in: a larger budget is passed over as often as a small one."""
        return self.steps_of_round(self.queries.answers_per_silo / self.queries.rounds)

    def steps_of_round(self, images: float) -> int:
        """The same of a round that asks about so many images.

        Args:
            images: mean number of images of such rounds, > 0.
        """
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
    return load_as(RunConfig, path, overrides, absent="check the path, or write one: fedcpsc init FILE.yaml")
