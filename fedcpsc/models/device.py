# SPDX-License-Identifier: Apache-2.0
"""Where networks run, and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from fedcpsc.config import Precision
from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.exact_strides import make_strides_exact
from fedcpsc.models.precision import own_precision
from fedcpsc.transfers import uploaded

__all__ = [
    "choose_device",
    "forward_float32",
    "mixed_precision",
    "to_device",
    "torch_threads",
]

Network = TypeVar("Network", bound=nn.Module)


def choose_device(wanted: str, key: str = "runtime.device") -> torch.device:
    """`runtime.device` as a device; "auto" is the GPU where there is one.

    Args:
        wanted: auto, cpu or cuda.
        key: key of the configuration that says so, for messages.

    Raises:
        ConfigError: where "cuda" is wanted and torch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        other = "" if torch.version.cuda else f", or install a torch with CUDA: {torch.__version__} has none"
        raise ConfigError(explain(key, wanted, "no GPU is visible to torch", f"use auto or cpu{other}"))
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def to_device(network: Network, device: torch.device) -> Network:
    """The network on the device, with channels last in memory: convolutions else rearrange every time.

    The same mathematics, but sums run in another order: outputs differ by float rounding. A classifier may want another
    order in memory (`Classifier.memory_format`). It may pass in either precision (`make_strides_exact`).
    """
    wanted = network.memory_format if isinstance(network, Classifier) else torch.channels_last
    if device.type != "cpu":
        network._apply(partial(uploaded, device=device))  # type: ignore[no-untyped-call] # `to` waits at every tensor
    return make_strides_exact(network).to(device=device, memory_format=wanted)  # type: ignore[call-overload, no-any-return]


def mixed_precision(device: torch.device, precision: Precision | None) -> torch.autocast:
    """The context for passes through networks: with bfloat16, their products compute in it; weights stay float32.

    None takes the format that the device is fastest in.

    Enter it anew for every step: inside, torch keeps the weights it rounded, and would not see what the optimiser did.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=(precision or own_precision(device)) == "bfloat16")


def forward_float32(network: Classifier, x: Tensor, precision: Precision | None) -> tuple[Tensor, Tensor]:
    """(logits [B, K], features [B, D]) of [B, C, H, W], float32 whatever they were computed in: so are all losses."""
    with mixed_precision(x.device, precision):
        logits, features = network.forward_with_features(x)
    return logits.float(), features.float()


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many torch threads for a while; 0 leaves torch's choice.

    Small batches through small networks want one: threads that wait for each other cost more than they bring.
    """
    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
