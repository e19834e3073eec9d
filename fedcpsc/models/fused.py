# SPDX-License-Identifier: Apache-2.0
"""Optimisers whose step is one kernel over all weights, where those lie on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["fused_on_gpu", "load_optimiser"]


def fused_on_gpu(weights: Iterable[nn.Parameter]) -> bool | None:
    """`fused` for torch's optimisers: True where all weights lie on a GPU, None (torch's own choice) elsewhere."""
    kinds = {weight.device.type for weight in weights}
    return True if kinds == {"cuda"} else None


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restores an optimiser's state, which may have been saved on another kind of device.

    Raises:
        ValueError, KeyError: the state is of other weights.
    """
    own = [group.get("fused") for group in optimiser.param_groups]
    groups = [{**group, "fused": fused} for group, fused in zip(state["param_groups"], own, strict=True)]
    optimiser.load_state_dict({**state, "param_groups": groups})
