# SPDX-License-Identifier: Apache-2.0
"""What a run's configuration may choose by name, and where the object of each name is.

To add one: write a module with the object, which documents itself, and add a line here. Configuration, its reference,
the tables of the documentation and the contract tests follow. A user's own rule or prior needs no line:
docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedcpsc.errors import ConfigError, explain
from fedcpsc.registry import Choices

__all__ = [
    "AGGREGATION_RULES",
    "ATTACKS",
    "DATA_SOURCES",
    "DEFAULT_ATTACKS",
    "DEFAULT_MIXTURE",
    "MECHANISMS",
    "PRIORS",
    "TEACHER_FORMATS",
    "check_mixture",
]

AGGREGATION_RULES = Choices("aggregation rule", group="fedcpsc.aggregation_rules")
AGGREGATION_RULES.register("uniform", "fedcpsc.aggregation.uniform:UNIFORM")
AGGREGATION_RULES.register("entropy", "fedcpsc.aggregation.entropy:ENTROPY")
AGGREGATION_RULES.register("class_prior_log", "fedcpsc.aggregation.class_prior_log:CLASS_PRIOR_LOG")
AGGREGATION_RULES.register("answer_prior_log", "fedcpsc.aggregation.answer_prior_log:ANSWER_PRIOR_LOG")
AGGREGATION_RULES.register("answer_peak_log", "fedcpsc.aggregation.answer_peak_log:ANSWER_PEAK_LOG")

PRIORS = Choices("prior", group="fedcpsc.priors")
PRIORS.register("smooth", "fedcpsc.priors.smooth:SMOOTH")
PRIORS.register("dead_leaves", "fedcpsc.priors.dead_leaves:DEAD_LEAVES")
PRIORS.register("strokes", "fedcpsc.priors.strokes:STROKES")
PRIORS.register("fractals", "fedcpsc.priors.fractals:FRACTALS")
PRIORS.register("spectral", "fedcpsc.priors.spectral:SPECTRAL")
PRIORS.register("scenes", "fedcpsc.priors.scenes:SCENES")
PRIORS.register("cppn", "fedcpsc.priors.cppn:CPPN")
PRIORS.register("photographs", "fedcpsc.priors.photographs:PHOTOGRAPHS")

DEFAULT_MIXTURE = ("smooth", "dead_leaves", "strokes", "fractals", "spectral", "scenes", "cppn")
"""Priors that a run mixes evenly where its configuration names none; a longer list changes the results of such runs."""

DATA_SOURCES = Choices("data source")
DATA_SOURCES.register("digits", "fedcpsc.data.readers.digits:DIGITS")
DATA_SOURCES.register("parquet", "fedcpsc.data.readers.parquet:PARQUET")
DATA_SOURCES.register("folder", "fedcpsc.data.readers.folder:FOLDER")
DATA_SOURCES.register("mnist", "fedcpsc.data.readers.torchvision:MNIST")
DATA_SOURCES.register("fashion_mnist", "fedcpsc.data.readers.torchvision:FASHION_MNIST")
DATA_SOURCES.register("cifar10", "fedcpsc.data.readers.torchvision:CIFAR10")
DATA_SOURCES.register("cifar100", "fedcpsc.data.readers.torchvision:CIFAR100")
DATA_SOURCES.register("arrays", "fedcpsc.data.readers.arrays:ARRAYS")

MECHANISMS = Choices("mechanism")  # no group: what a silo promises must be proven in this project
MECHANISMS.register("none", "fedcpsc.gatekeeper.mechanisms.none:NONE")
MECHANISMS.register("hardening", "fedcpsc.gatekeeper.mechanisms.hardening:HARDENING")
MECHANISMS.register("dp_sgd", "fedcpsc.gatekeeper.mechanisms.dp_sgd:DP_SGD")
MECHANISMS.register("shard_votes", "fedcpsc.gatekeeper.mechanisms.shard_votes:SHARD_VOTES")
MECHANISMS.register("noise_only", "fedcpsc.gatekeeper.mechanisms.noise_only:NOISE_ONLY")
MECHANISMS.register("gnmax", "fedcpsc.gatekeeper.mechanisms.gnmax:GNMAX")
MECHANISMS.register("confident_gnmax", "fedcpsc.gatekeeper.mechanisms.confident_gnmax:CONFIDENT_GNMAX")

TEACHER_FORMATS = Choices("teacher format")  # no group: the format `python` opens what an owner has installed
TEACHER_FORMATS.register("torch", "fedcpsc.teachers.torch_teacher:TORCH")
TEACHER_FORMATS.register("shards", "fedcpsc.teachers.shard_teacher:SHARDS")
TEACHER_FORMATS.register("onnx", "fedcpsc.teachers.onnx_teacher:ONNX")
TEACHER_FORMATS.register("torchvision", "fedcpsc.teachers.torchvision_teacher:TORCHVISION")
TEACHER_FORMATS.register("timm", "fedcpsc.teachers.timm_teacher:TIMM")
TEACHER_FORMATS.register("huggingface", "fedcpsc.teachers.huggingface_teacher:HUGGING_FACE")
TEACHER_FORMATS.register("torch_export", "fedcpsc.teachers.torch_export_teacher:TORCH_EXPORT")
TEACHER_FORMATS.register("torchscript", "fedcpsc.teachers.torchscript_teacher:TORCHSCRIPT")
TEACHER_FORMATS.register("python", "fedcpsc.teachers.python_teacher:PYTHON")

ATTACKS = Choices("attack")
ATTACKS.register("loss", "fedcpsc.audit.attacks.loss:LOSS")
ATTACKS.register("lira_online", "fedcpsc.audit.attacks.lira_online:LIRA_ONLINE")
ATTACKS.register("lira_offline", "fedcpsc.audit.attacks.lira_offline:LIRA_OFFLINE")
ATTACKS.register("rmia", "fedcpsc.audit.attacks.rmia:RMIA")
ATTACKS.register("label_only", "fedcpsc.audit.attacks.label_only:LABEL_ONLY")

DEFAULT_ATTACKS = ("loss", "lira_online", "lira_offline", "rmia", "label_only")
"""Attacks of an audit whose plan names none; those that cannot work on what a policy lets out are left out."""


def check_mixture(mixture: Mapping[str, float], *, built_in: bool = False) -> None:
    """Does nothing where the priors can be mixed so.

    Args:
        mixture: weight of each prior.
        built_in: whether only this project's own priors will do: a mixture that came over the wire.

    Raises:
        ConfigError: an unknown prior, or no positive weight.
    """
    for name in mixture:
        PRIORS.check(name, built_in=built_in)
    if not any(weight > 0 for weight in mixture.values()):
        raise ConfigError(explain("prior", dict(mixture), "needs a positive weight", "use {smooth: 1}"))
