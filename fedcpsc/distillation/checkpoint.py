# SPDX-License-Identifier: Apache-2.0
"""The engine's state after a round, written whole or not at all.

All randomness follows from (seed, round), so weights, optimiser states and the round groups so far are the whole
state. What was asked and is still outstanding stands in the answer bank.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fedcpsc.distillation.round_schedule import RoundSchedule
from fedcpsc.distillation.steps import Member
from fedcpsc.models.fused import load_optimiser
from fedcpsc.runs.checkpoint import CheckpointState, damaged_checkpoint, read_state, rounds_asked, write_state

__all__ = ["Found", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True)
class Found:
    """What a checkpoint says beside the members' states.

    Attributes:
        ends: number of the round after each round group's last; empty where there is no checkpoint yet.
        size: number of rounds in the next group, >= 1.
        seconds: seconds spent on the run before.
        generator: state of the last generator; None where none was made.
        excluded: names of the silos whose answers the members were not fitted to.
        missed: names of the silos that missed a deadline and have answered no batch since.
    """

    ends: tuple[int, ...] = ()
    size: int = 1
    seconds: float = 0.0
    generator: Mapping[str, Tensor] | None = None
    excluded: frozenset[str] = frozenset()
    missed: frozenset[str] = frozenset()


def save_checkpoint(
    folder: Path,
    members: list[Member],
    generator: nn.Module | None,
    schedule: RoundSchedule,
    seconds: float,
    excluded: Collection[str] = (),
    missed: Collection[str] = (),
) -> None:
    """Replaces the folder's checkpoint atomically.

    Args:
        folder: folder of the checkpoint.
        members: committee of the run.
        generator: last generator that was made; None where none was.
        schedule: round groups asked about, and the size of the next.
        seconds: seconds spent on the run so far.
        excluded: names of the silos whose answers the members were not fitted to.
        missed: names of the silos that missed a deadline and have answered no batch since.

    Raises:
        RunError: it cannot be written; the one before it is kept.
    """
    state: CheckpointState = {
        "ends": list(schedule.ends),
        "size": schedule.size,
        "seconds": seconds,
        "excluded": sorted(excluded),
        "missed": sorted(missed),
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
            load_optimiser(member.optimiser, saved["optimiser"])
        return Found(
            rounds_asked(state),
            int(state.get("size", 1)),
            float(state["seconds"]),
            state["generator"],
            frozenset(state.get("excluded", ())),
            frozenset(state.get("missed", ())),
        )
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_checkpoint(folder, error) from error
