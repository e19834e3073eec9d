# SPDX-License-Identifier: Apache-2.0
"""The white-box mode's configuration: typed, frozen, strict, torch-free. The defaults are the authors' CIFAR-100 run.

Source: Shao, Zhang, Wang, Pattern Recognition 143 (2023) 109781, arXiv 2510.03375; names as there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedcpsc.config import Precision, RuntimeConfig
from fedcpsc.errors import explain
from fedcpsc.silo_config import DataConfig
from fedcpsc.typed_yaml import Positive, Rate, Strict, Weight

__all__ = ["GeneratorPlan", "LossPlan", "OutputPlan", "StudentPlan", "TeacherPlan", "WhiteBoxConfig"]

Condition = Literal["cfe", "input", "none"]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class TeacherPlan(Strict):
    """The local teacher: read from a file, or trained on the training images first."""

    architecture: str = Field("resnet34", description="a name of the model zoo")
    width: Positive = Field(16, description="channels of the first stage, for convnet and resnet18_narrow")
    weights: str | None = Field(None, description="safetensors file of a trained teacher; null trains one")
    epochs: Positive = Field(200, description="passes over the training images")
    batch_size: Positive = Field(128, description="images a step")
    optimiser: Literal["adam", "sgd"] = Field("sgd", description="sgd has Nesterov momentum 0.9")
    learning_rate: Rate = Field(0.1, description="its peak; falls as a cosine")
    weight_decay: Weight = Field(5e-4, description="weight decay of the optimiser")
    shift: Annotated[int, Field(ge=0)] = Field(4, description="random shift during training, in pixels")
    flip: bool = Field(True, description="random horizontal flips during training")


class GeneratorPlan(Strict):
    """The conditional generator and its Adam."""

    nz: Positive = Field(256, description="length of z")
    ngf: Positive = Field(64, description="channels; DCGAN form from 64x64 on, else two upsamplings")
    condition: Condition = Field(
        "cfe",
        description="how the pseudo-label enters. cfe: by a scale and a shift of its own in every norm, as published; "
        "input: beside z alone; none: not at all, the label is then the class that the teacher sees. "
        "The latter two are for comparison",
    )
    learning_rate: Rate = Field(1e-3, description="learning rate of Adam over the generator, the adapter and z itself")
    betas: tuple[Momentum, Momentum] = Field((0.5, 0.999), description="decay rates of Adam's moments")
    milestones: tuple[Positive, ...] = Field((50, 150), description="epochs at which that rate falls to a tenth")


class StudentPlan(Strict):
    """The student and its SGD."""

    architecture: str = Field("resnet18", description="a name of the model zoo")
    width: Positive = Field(16, description="channels of the first stage, see teacher.width")
    learning_rate: Rate = Field(0.1, description="peak; rises over warm_up epochs, then falls as a cosine")
    momentum: Momentum = Field(0.9, description="momentum of SGD")
    weight_decay: Weight = Field(5e-4, description="weight decay of SGD")
    warm_up: Annotated[int, Field(ge=0)] = Field(10, description="epochs over which the learning rate rises")


class LossPlan(Strict):
    """`L_G = -L_KD - alpha L_2 + beta L_BN + gamma L_SCL + eta L_CE` and `L_S = L_KD + alpha L_2 + eta L_CE`."""

    alpha: Weight = Field(5.0, description="weight of the L2 distance of logits (IKD)")
    beta: Weight = Field(1.0, description="weight of the batch-norm prior; 0 for a teacher without batch norm")
    gamma: Weight = Field(0.7, description="weight of the supervised contrast over teacher and student views")
    eta: Weight = Field(0.7, description="weight of the cross-entropy to the pseudo-label")
    temperature: Rate = Field(0.07, description="temperature of the supervised contrast")
    log_l2: bool = Field(False, description="the CIFAR-10 form: L2 as its logarithm")


class OutputPlan(Strict):
    """Where the run leaves its results."""

    root: str = Field("runs", description="folder of run folders, relative to the working directory")
    name: str = Field("white_box", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$", description="name of the run's folder")


class WhiteBoxConfig(Strict):
    """All of a white-box run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(1, description="seed of everything random")
    data: DataConfig = DataConfig(source="cifar100")
    teacher: TeacherPlan = TeacherPlan()
    generator: GeneratorPlan = GeneratorPlan()
    student: StudentPlan = StudentPlan()
    loss: LossPlan = LossPlan()
    epochs: Positive = Field(600, description="each of `iterations` rounds, an evaluation and a checkpoint")
    iterations: Positive = Field(50, description="rounds an epoch: generator steps, then student steps")
    batch_size: Annotated[int, Field(ge=2)] = Field(512, description="images a step; batch norm needs two")
    generator_steps: Positive = Field(6, description="a round, all on the same z and labels; z is optimised too")
    student_steps: Positive = Field(5, description="a round, each on fresh z and labels")
    evaluate_every: Positive = Field(1, description="epochs between evaluations on held-out images")
    precision: Precision = Field(
        "float32",
        description="floating-point format of passes; losses and batch-norm prior stay float32",
    )
    reference_quirks: bool = Field(
        False, description="do as the authors' code does where it differs from the paper: for parity alone"
    )
    output: OutputPlan = OutputPlan()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _one_process_runs_it(self) -> WhiteBoxConfig:
        for name, value in (("processes", self.runtime.processes), ("compile", self.runtime.compile)):
            if value != RuntimeConfig.model_fields[name].default:
                constraint = "is for runs that ask silos: the white-box mode runs as it is, in one process"
                raise ValueError(explain(f"runtime.{name}", value, constraint, "leave it out"))
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> WhiteBoxConfig:
        if self.student.warm_up >= self.epochs:
            constraint = f"must be < epochs={self.epochs}"
            raise ValueError(explain("student.warm_up", self.student.warm_up, constraint, "lower it, to a tenth, say"))
        return self
