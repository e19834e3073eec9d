"""Where networks run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

from fedcpsc.errors import ConfigError, explain

__all__ = ["choose_device", "placed", "torch_threads"]

Network = TypeVar("Network", bound=nn.Module)


def choose_device(wanted: str) -> torch.device:
    """`runtime.device` as a device; "auto" is the GPU where there is one.

    Raises:
        ConfigError: where "cuda" is wanted and torch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(explain("runtime.device", wanted, "no GPU is visible to torch", "use auto or cpu"))
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def placed(network: Network, device: torch.device) -> Network:
    """The network on the device; on a CPU with channels last in memory, which convolutions else rearrange every time.

    The same mathematics, but sums run in another order: outputs differ by float rounding.
    """
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if device.type == "cpu" else network


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
