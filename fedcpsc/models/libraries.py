# SPDX-License-Identifier: Apache-2.0
"""Networks by name: this project's, torchvision's and timm's. None is downloaded, and none has weights of a library's.

Names are `convnet` for this project's, `torchvision/resnet18` and `timm/resnet18` for the others'.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.registry import ARCHITECTURES, build_classifier
from fedcpsc.models.seeded import seeded

__all__ = ["LIBRARIES", "TIMM", "TORCHVISION", "ZOO", "Library", "Plan", "libraries_of", "named_network", "skeleton"]

_NO_CLASSIFIERS = {"features_only", "feature_cfg", "out_indices", "model_cfg", "kwargs_filter", "device", "dtype"}


@dataclass(frozen=True)
class Plan:
    """What a network is built from, beside its name.

    Attributes:
        outputs: number of outputs.
        channels: number of channels of an image.
        sides: height and width of an image; None where they are not known.
        width: width of a network of `models.registry`.
        options: further arguments of timm's, as its config.json has them under `model_args`.
    """

    outputs: int
    channels: int = 3
    sides: tuple[int, int] | None = None
    width: int = 16
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Library:
    """Where networks come from.

    Attributes:
        name: name in front of an architecture's, as in "torchvision/resnet18".
        kind: teacher format of its networks.
        names: function that gives the names of its networks.
        build: function that makes a network, initialised as the library does from torch's global generator.
    """

    name: str
    kind: str
    names: Callable[[], tuple[str, ...]]
    build: Callable[[str, Plan], nn.Module]


def _zoo(name: str, plan: Plan) -> nn.Module:
    return build_classifier(name, plan.outputs, (plan.channels, *(plan.sides or (32, 32))), plan.width)


def _torchvision_names() -> tuple[str, ...]:
    import torchvision  # noqa: PLC0415 - takes its time

    # these two change their input where they were made from pretrained weights, and their state dicts do not say so
    unsaid = {"googlenet", "inception_v3"}
    return tuple(name for name in torchvision.models.list_models(module=torchvision.models) if name not in unsaid)


def _torchvision(name: str, plan: Plan) -> nn.Module:
    import torchvision  # noqa: PLC0415 - takes its time

    sized: dict[str, Any] = {}
    if plan.sides and name.startswith("vit_"):
        sized = {"image_size": plan.sides[0]}
    elif plan.sides and name == "maxvit_t":
        sized = {"input_size": plan.sides}
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=plan.outputs, **sized)
    if plan.channels != 3:
        _replace_first_convolution(network, plan.channels)
    return network


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Lets a network take other images than colour ones, as owners do it: by a new first layer."""
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent, _, own = path.rpartition(".")
            kept = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")}
            new = nn.Conv2d(channels, layer.out_channels, bias=layer.bias is not None, **kept)
            setattr(network.get_submodule(parent), own, new)
            return


def _timm_names() -> tuple[str, ...]:
    return tuple(_timm_package().list_models())


def _timm(name: str, plan: Plan) -> nn.Module:
    timm = _timm_package()
    options = _timm_options(timm, plan.options)
    any_size = options.get("dynamic_img_size") or options.get("use_naflex") or options.get("strict_img_size") is False
    if plan.sides and not any_size and getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        options = {"img_size": plan.sides} | options
    known = {"num_classes": plan.outputs, "in_chans": plan.channels, "scriptable": False}
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **known, **options)
    except Exception as error:
        if not plan.options:
            raise
        shown = f"timm cannot build {name} with them ({str(error).partition(chr(10))[0][:150]})"
        remedy = "upgrade timm, fix model_args in config.json, or export the model to ONNX"
        raise ConfigError(explain("model_args", dict(plan.options), shown, remedy)) from error
    return network


def _timm_options(timm: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a classifier is built with; outputs and channels are read from its weights instead.

    Raises:
        ConfigError: where one would load something, or make something else than a classifier.
    """
    factory = inspect.signature(timm.create_model).parameters.keys() | _NO_CLASSIFIERS
    refused = sorted(key for key in options if key in factory or key.startswith("pretrained"))
    if refused:
        shown = "loads something, or builds something else than a classifier"
        remedy = "remove it from model_args in config.json, or export the model to ONNX"
        raise ConfigError(explain("model_args", ", ".join(refused), shown, remedy))
    return {
        key: value for key, value in options.items() if key not in ("num_classes", "in_chans") and value is not None
    }


def _timm_package() -> Any:
    try:
        import timm  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            explain("architecture", "timm", "needs timm", "install it: pip install 'fedcpsc[timm]'")
        ) from error
    return timm


ZOO = Library("fedcpsc", "torch", lambda: ARCHITECTURES, _zoo)
TORCHVISION = Library("torchvision", "torchvision", _torchvision_names, _torchvision)
TIMM = Library("timm", "timm", _timm_names, _timm)
LIBRARIES = {library.name: library for library in (ZOO, TORCHVISION, TIMM)}


def skeleton(library: Library, name: str, plan: Plan) -> nn.Module:
    """A network for its tensors' names and shapes: it takes no memory, where it can be built so.

    Args:
        library: where the network comes from.
        name: name of the network there.
        plan: what it is built from.

    Raises:
        ConfigError: the library is not installed, or this project's network takes no such images.
    """
    try:
        with torch.device("meta"):
            network = library.build(name, plan)
    except NotImplementedError:  # it computes with tensors while it is built
        return _unseen(library, name, plan)
    held = network.state_dict().keys()
    whole = all(key in held for key, _ in network.named_buffers())
    return network if whole else _unseen(library, name, plan)


def _unseen(library: Library, name: str, plan: Plan) -> nn.Module:
    """A network whose building leaves no trace in torch's global generator."""
    with seeded(0):
        return library.build(name, plan)


def libraries_of(architecture: str) -> list[tuple[Library, str]]:
    """Libraries that have a network of this name, with its name there; timm's only where it is named.

    Args:
        architecture: name of a network, such as "resnet18" or "torchvision/resnet18".

    Raises:
        ConfigError: timm is named and not installed.
    """
    prefix, slash, name = architecture.partition("/")
    chosen = [LIBRARIES[prefix]] if slash and prefix in LIBRARIES else [ZOO, TORCHVISION]
    name = name if slash and prefix in LIBRARIES else architecture
    return [(library, name) for library in chosen if name in library.names()]


def named_network(architecture: str, key: str) -> tuple[Library, str]:
    """The library of a network that a configuration names, and its name there.

    Args:
        architecture: name without a prefix for a network of this project, else `torchvision/NAME` or `timm/NAME`.
        key: dotted key of the configuration that names it, for messages.

    Raises:
        ConfigError: there is no such network, naming the nearest; or timm is named and not installed.
    """
    prefix, slash, name = architecture.partition("/")
    library = LIBRARIES.get(prefix) if slash else ZOO
    if library is None:
        constraint = f"{prefix!r} is no library of networks"
        raise ConfigError(explain(key, architecture, constraint, "write NAME, torchvision/NAME or timm/NAME"))
    name = name if slash else architecture
    names = library.names()
    if name in names:
        return library, name
    near = ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.0))
    if library is not ZOO:
        remedy = f"use one of its names, such as {library.name}/{near.partition(',')[0]}"
        raise ConfigError(explain(key, architecture, f"is unknown to {library.name}; nearest are {near}", remedy))
    remedy = f"use one of {', '.join(names)}; or torchvision/NAME, timm/NAME"
    if name in TORCHVISION.names():
        remedy = f"write torchvision/{name}, or use one of {', '.join(names)}"
    raise ConfigError(explain(key, architecture, f"unknown; the nearest is {near.partition(',')[0]!r}", remedy))
