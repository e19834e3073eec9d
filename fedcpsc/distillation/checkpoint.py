"""The engine's state after a round, written whole or not at all.

All randomness follows from (seed, round), so weights, optimiser states and the bundles of rounds so far are the whole
state. What was asked and is still outstanding stands in the answer bank.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedcpsc.distillation.pace import Course
from fedcpsc.distillation.steps import Member
from fedcpsc.runs.checkpoint import damaged_checkpoint, read_state, rounds_asked, write_state

__all__ = ["Found", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True)
class Found:
    """What a checkpoint says beside the members' states.

    Attributes:
        ends: the round after each bundle's last; empty where there is no checkpoint yet.
        size: rounds of the next bundle.
        seconds: spent on the run before.
        generator: the last generator's state, if one was made.
    """

    ends: tuple[int, ...] = ()
    size: int = 1
    seconds: float = 0.0
    generator: dict[str, Any] | None = None


def save_checkpoint(
    folder: Path, members: list[Member], generator: nn.Module | None, course: Course, seconds: float
) -> None:
    """Replaces the folder's checkpoint atomically.

    Args:
        generator: the last one made, if any.
        course: the bundles asked about, and the size of the next.
        seconds: spent on the run so far.

    Raises:
        RunError: it cannot be written; the one before it is kept.
    """
    state: dict[str, Any] = {
        "ends": list(course.ends),
        "size": course.size,
        "seconds": seconds,
        "generator": None if generator is None else generator.state_dict(),
        "members": [{"network": m.network.state_dict(), "optimiser": m.optimiser.state_dict()} for m in members],
    }
    write_state(folder, state)


def load_checkpoint(folder: Path, members: list[Member], device: torch.device) -> Found:
    """Restores `members`; returns the rest.

    Raises:
        RunError: the checkpoint is damaged, or does not fit the configuration.
    """
    state = read_state(folder, device)
    if state is None:
        return Found()
    try:
        for member, saved in zip(members, state["members"], strict=True):
            member.network.load_state_dict(saved["network"])
            member.optimiser.load_state_dict(saved["optimiser"])
        return Found(rounds_asked(state), int(state.get("size", 1)), float(state["seconds"]), state["generator"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_checkpoint(folder, error) from error
