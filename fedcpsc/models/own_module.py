# SPDX-License-Identifier: Apache-2.0
"""A student that is the caller's own module: taken as it is, and tried before anything is asked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedcpsc.config import Precision
from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.device import mixed_precision
from fedcpsc.models.exact_strides import make_strides_exact
from fedcpsc.models.seeded import seeded

__all__ = ["GivenStudent", "OwnModule", "check_own_module", "own_module"]

GivenStudent: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A module, float32 [B, C, H, W] in [-1, 1] -> logits [B, K] for any B; or a function (a class, say) that makes one."""

_TRIED = (4, 1)  # images of a training pass, and of one in evaluation: what is left over at the end may be one image


@dataclass(frozen=True, eq=False)
class OwnModule:
    """The caller's module, which is never changed: copies of it are fitted.

    Attributes:
        module: module with the weights that the student begins with.
        name: name of its class.
    """

    module: nn.Module
    name: str

    def copied(self) -> nn.Module:
        """A copy to be fitted, in training mode."""
        return copy.deepcopy(self.module).train()


def own_module(given: GivenStudent) -> OwnModule:
    """What a caller of the Python API gave as the student.

    Raises:
        ConfigError: it is no module and makes none, or it cannot be copied.
    """
    module = given if isinstance(given, nn.Module) else given() if callable(given) else given
    if not isinstance(module, nn.Module):
        raise _unfit(type(module).__name__, "must be a torch.nn.Module, or a function that makes one", "give one")
    name = type(module).__name__
    if any(is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
        raise _unfit(name, "has layers whose sizes are not known yet", "pass a batch of images through it once")
    try:
        module = copy.deepcopy(module)  # what the caller does with it later is no matter of ours
    except Exception as error:  # whatever a class of the caller's raises
        raise _unfit(name, f"cannot be copied ({_line(error)})", "detach tensors that it keeps") from error
    return OwnModule(module.cpu(), name)


def check_own_module(
    own: OwnModule,
    classes: int,
    image_shape: tuple[int, int, int],
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision | None = "float32",
) -> None:
    """Does nothing where the module can be fitted; tried on a copy, on random images.

    Args:
        own: module.
        classes: K.
        image_shape: (C, H, W) of the federation's images.
        batch_size: number of images of a batch in the fit.
        device: device of the fit.
        precision: floating-point format of the passes in the fit.

    Raises:
        ConfigError: nothing in it learns, a weight is not finite, it does not take such images, its outputs are not K
            finite logits for each image, or no gradient reaches its weights.
    """
    module = make_strides_exact(own.copied()).to(device)
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    state = module.state_dict()
    if not learning:
        raise _unfit(own.name, "has no parameter that requires a gradient", "leave some to be fitted")
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise _unfit(own.name, f"its state dict holds more than tensors ({strange[0]})", "keep such state elsewhere")
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise _unfit(own.name, f"{bad[0]} is not finite", "initialise it")
    with seeded(0, device):  # it may drop out
        several, one = (torch.rand(min(count, batch_size), *image_shape, device=device) * 2 - 1 for count in _TRIED)
        logits = _logits(own, module, several, classes, precision)
        torch.logsumexp(logits, 1).sum().backward()  # type: ignore[no-untyped-call]
        reached = [parameter.grad for parameter in learning if parameter.grad is not None]
        if not any(bool(gradient.any()) for gradient in reached):
            raise _unfit(
                own.name, "no gradient reaches its parameters", "remove detach() and no_grad() from its forward"
            )
        if not all(bool(gradient.isfinite().all()) for gradient in reached):
            raise _unfit(own.name, "its gradients are not finite", "check its initial weights")
        module.eval()
        with torch.no_grad():
            _logits(own, module, one, classes, precision)


def _logits(own: OwnModule, module: nn.Module, images: Tensor, classes: int, precision: Precision | None) -> Tensor:
    """The logits of some images, float32.

    Raises:
        ConfigError: there are none of that shape, or they are not finite.
    """
    shape = list(images.shape)
    mode = "in training" if module.training else "in evaluation"
    try:
        with mixed_precision(images.device, precision):
            logits = module(images)
    except Exception as error:  # whatever a class of the caller's raises
        shown = f"failed {mode} on float32{shape} ({_line(error)})"
        remedy = "let it take the federation's images, for any number of them"
        if precision == "bfloat16":
            remedy += ", or set student.precision: float32"
        raise _unfit(own.name, shown, remedy) from error
    if not isinstance(logits, Tensor):
        shown = f"gives {type(logits).__name__}, must give one tensor of logits"
        raise _unfit(own.name, shown, "wrap it in a module whose forward returns the logits alone")
    if list(logits.shape) != (wanted := [len(images), classes]) or not logits.is_floating_point():
        shown = f"gives {str(logits.dtype).removeprefix('torch.')}{list(logits.shape)} {mode} for images {shape}"
        remedy = f"let it give one logit for each of the federation's {classes} classes"
        raise _unfit(own.name, f"{shown}, must give float32{wanted}", remedy)
    if module.training and not logits.requires_grad:
        raise _unfit(own.name, "its logits have no gradient", "remove detach() and no_grad() from its forward")
    if not bool(logits.isfinite().all()):
        raise _unfit(own.name, f"its logits are not finite {mode}", "check its initial weights")
    return logits.float()


def _unfit(name: str, constraint: str, remedy: str) -> ConfigError:
    return ConfigError(explain("student", name, constraint, remedy))


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]
