# SPDX-License-Identifier: Apache-2.0
"""Networks by name: this project's, torchvision's and timm's, built without weights, and told apart by key shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedcpsc.errors import ConfigError, ManifestError, explain
from fedcpsc.models.registry import ARCHITECTURES, build_classifier

__all__ = ["LIBRARIES", "Fit", "Library", "Plan", "fit", "libraries_of", "loaded", "nearest"]

Shapes = dict[str, tuple[int, ...]]

_SIDES = (32, 28, 8, 16, 64)  # tried for this project's networks, where the owner does not say the image's shape


@dataclass(frozen=True)
class Plan:
    """What a network is built from, beside its name.

    Attributes:
        outputs: number of outputs.
        channels: number of channels of an image.
        sides: height and width of an image; None where they are not known.
        width: width of a network of `models.registry`.
    """

    outputs: int
    channels: int = 3
    sides: tuple[int, int] | None = None
    width: int = 16


@dataclass(frozen=True)
class Library:
    """Where networks come from.

    Attributes:
        name: name in front of an architecture's, as in "torchvision/resnet18".
        kind: teacher format of its networks.
        names: function that gives the names of its networks.
        build: function that makes a network; its weights may have no values yet.
    """

    name: str
    kind: str
    names: Callable[[], tuple[str, ...]]
    build: Callable[[str, Plan], nn.Module]


@dataclass(frozen=True)
class Fit:
    """A network that a state dict fits.

    Attributes:
        library: where the network comes from.
        name: name of the network there.
        plan: what it is built from; sides only where its weights depend on them.
    """

    library: Library
    name: str
    plan: Plan


def _zoo(name: str, plan: Plan) -> nn.Module:
    return build_classifier(name, plan.outputs, (plan.channels, *(plan.sides or (32, 32))), plan.width, seed=0)


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
    with torch.device("meta"):
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
    package = _timm_package()
    network: nn.Module = package.create_model(name, pretrained=False, num_classes=plan.outputs, in_chans=plan.channels)
    return network


def _timm_package() -> Any:
    try:
        import timm  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ManifestError(
            explain("architecture", "timm", "needs timm", "install it: pip install 'fedcpsc[timm]'")
        ) from error
    return timm


ZOO = Library("fedcpsc", "torch", lambda: ARCHITECTURES, _zoo)
TORCHVISION = Library("torchvision", "torchvision", _torchvision_names, _torchvision)
TIMM = Library("timm", "timm", _timm_names, _timm)
LIBRARIES = {library.name: library for library in (ZOO, TORCHVISION, TIMM)}


def libraries_of(architecture: str) -> list[tuple[Library, str]]:
    """Libraries that have a network of this name, with its name there; timm's only where it is named.

    Args:
        architecture: name of a network, such as "resnet18" or "torchvision/resnet18".
    """
    prefix, slash, name = architecture.partition("/")
    chosen = [LIBRARIES[prefix]] if slash and prefix in LIBRARIES else [ZOO, TORCHVISION]
    name = name if slash and prefix in LIBRARIES else architecture
    return [(library, name) for library in chosen if name in library.names()]


def fit(library: Library, name: str, state: Mapping[str, Tensor], plan: Plan) -> Fit | None:
    """The network whose tensors have the names and shapes of a state dict; None where they differ.

    Args:
        library: where the network comes from.
        name: name of the network there.
        state: tensors by name.
        plan: what is known; outputs and channels are read from the state dict.
    """
    for sides in [plan.sides] if plan.sides or library is not ZOO else [(side, side) for side in _SIDES]:
        try:
            found = _fit(library, name, state, replace(plan, sides=sides))
        except (ConfigError, RuntimeError, ValueError, AssertionError):  # no such network for such images
            continue
        if found is not None:
            return Fit(library, name, found)
    return None


def _fit(library: Library, name: str, state: Mapping[str, Tensor], plan: Plan) -> Plan | None:
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    eleven, thirteen = (_shapes(library.build(name, replace(plan, outputs=number))) for number in (11, 13))
    heads = [key for key, shape in eleven.items() if shape != thirteen[key]]
    first = next((key for key, shape in eleven.items() if len(shape) == 4), None)
    needed = heads if first is None else [*heads, first]
    if not heads or any(len(shapes.get(key, ())) != len(eleven[key]) for key in needed):
        return None
    plan = replace(plan, outputs=shapes[heads[0]][0])
    if first is not None:
        width = shapes[first][0] if library is ZOO else plan.width
        plan = replace(plan, channels=shapes[first][1], width=width)
    wanted = _shapes(library.build(name, plan))
    return plan if _compared(wanted) == _compared(shapes) else None


def loaded(network: nn.Module, state: Mapping[str, Tensor], rebuild: Callable[[], nn.Module]) -> nn.Module:
    """The network with the state dict's own tensors as its weights: no second copy of them is made.

    Args:
        network: network, its weights perhaps without values.
        state: tensors by name, which fit it.
        rebuild: function that makes the network with values, where it has constants that no state dict holds.

    Raises:
        RuntimeError: where they do not fit.
    """
    whole = {name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked") and name not in whole:
            whole[name] = torch.zeros_like(tensor, device="cpu")
    network.load_state_dict(whole, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):
        network = rebuild()
        network.load_state_dict(whole, assign=True)
    return network


def nearest(state: Mapping[str, Tensor], count: int = 3) -> list[str]:
    """Networks of this project and of torchvision, those first that have most tensors of the same name and shape."""
    found = _compared({key: tuple(tensor.shape) for key, tensor in state.items()})
    scores: dict[str, float] = {}
    for library in (ZOO, TORCHVISION):
        for name in library.names():
            try:
                own = _compared(_shapes(library.build(name, Plan(outputs=11))))
            except (ConfigError, RuntimeError, ValueError):
                continue
            same = sum(shape == own.get(key) for key, shape in found.items())
            named = sum(key in own for key in found)
            scores[f"{library.name}/{name}"] = (same + 0.2 * named) / len(own.keys() | found.keys())
    return sorted(scores, key=lambda name: -scores[name])[:count]


def _shapes(network: nn.Module) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def _compared(shapes: Shapes) -> Shapes:
    """The shapes that count: old checkpoints have no counters of batches."""
    return {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
