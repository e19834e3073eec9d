"""Where networks run."""

from __future__ import annotations

import torch

from fedcpsc.errors import ConfigError, explain

__all__ = ["choose_device"]


def choose_device(wanted: str) -> torch.device:
    """`runtime.device` as a device; "auto" is the GPU where there is one.

    Raises:
        ConfigError: where "cuda" is wanted and torch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(explain("runtime.device", wanted, "no GPU is visible to torch", "use auto or cpu"))
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
