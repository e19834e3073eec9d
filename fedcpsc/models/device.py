"""Where networks run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from fedcpsc.errors import ConfigError, explain

__all__ = ["choose_device", "torch_threads"]


def choose_device(wanted: str) -> torch.device:
    """`runtime.device` as a device; "auto" is the GPU where there is one.

    Raises:
        ConfigError: where "cuda" is wanted and torch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(explain("runtime.device", wanted, "no GPU is visible to torch", "use auto or cpu"))
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


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
