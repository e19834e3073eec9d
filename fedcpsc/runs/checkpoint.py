# SPDX-License-Identifier: Apache-2.0
"""checkpoint/state.pt: the engine's state after a round, as tensors and numbers; the engine knows what they mean.

The file begins with a checksum of the rest (`sealed.py`). One without is of an earlier version: it is read, and the
checkpoint that replaces it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NotRequired

import torch
from torch import Tensor
from torch.optim.optimizer import StateDict
from typing_extensions import TypedDict

from fedcpsc.errors import RunError, explain
from fedcpsc.files import private_folder
from fedcpsc.runs.layout import CHECKPOINT_FILE
from fedcpsc.runs.sealed import read_sealed, write_sealed

__all__ = ["CheckpointState", "MemberState", "damaged_checkpoint", "read_state", "rounds_asked", "write_state"]

_NEEDED = {"members", "seconds", "generator"}


class MemberState(TypedDict):
    """Weights of a committee's member, and the state of its optimiser."""

    network: dict[str, Tensor]
    optimiser: StateDict


class CheckpointState(TypedDict):
    """The whole file.

    Attributes:
        members: states of the committee's members, the student's first.
        seconds: seconds spent on the run so far.
        generator: weights of the last generator; None where none was made.
        ends: number of the round after each round group's last, ascending.
        size: number of rounds in the next group; missing in files of earlier versions, where it is 1.
        excluded: names of the silos whose answers it was not fitted to; missing in files of earlier versions, where
            there are none.
        missed: names of the silos that missed a deadline and have answered no batch since; missing in files of earlier
            versions.
        next_round: number of the next round, in place of `ends` in files of earlier versions.
    """

    members: list[MemberState]
    seconds: float
    generator: dict[str, Tensor] | None
    ends: NotRequired[list[int]]
    size: NotRequired[int]
    excluded: NotRequired[list[str]]
    missed: NotRequired[list[str]]
    next_round: NotRequired[int]


def write_state(folder: Path, state: CheckpointState) -> None:
    """Replaces the checkpoint in `folder`, whole or not at all.

    Raises:
        RunError: it cannot be written; the one before it is kept.
    """
    path = folder / CHECKPOINT_FILE
    try:
        private_folder(folder)  # half-fitted students and optimisers: nobody is to work with them but the run
        write_sealed(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # torch calls a full disk a RuntimeError
        remedy = "free space or fix the permissions, then resume: the checkpoint before it is kept"
        raise RunError(explain("checkpoint", str(path), f"cannot be written ({error})", remedy)) from error


def read_state(
    folder: Path, device: torch.device | str = "cpu", tell: Callable[[str], None] = lambda line: None
) -> CheckpointState | None:
    """What `write_state` wrote; None where there is no checkpoint yet.

    Args:
        folder: folder of the checkpoint.
        device: device of its tensors.
        tell: function called with one line where the file has no checksum, as in earlier versions.

    Raises:
        RunError: it is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        state: CheckpointState = torch.load(read_sealed(path, tell), map_location=device, weights_only=True)
        if not state.keys() >= _NEEDED or not state.keys() & {"ends", "next_round"}:
            raise ValueError("it lacks something")
        rounds_asked(state)
    except Exception as error:  # torch raises whatever damaged bytes lead it to
        raise damaged_checkpoint(folder, error) from error
    return state


def rounds_asked(state: CheckpointState) -> tuple[int, ...]:
    """The round after each round group's last, ascending; empty where none was asked about."""
    ends = state["ends"] if "ends" in state else range(1, int(state["next_round"]) + 1)  # of earlier versions
    return tuple(map(int, ends))


def damaged_checkpoint(folder: Path, error: Exception) -> RunError:
    """The error for a checkpoint that cannot be used, with the way out."""
    path, why = folder / CHECKPOINT_FILE, (str(error) or type(error).__name__).splitlines()[0]
    remedy = "restore it, or delete the checkpoint folder: the rounds are fitted anew, on answers that the bank keeps"
    return RunError(explain("checkpoint", str(path), f"cannot be used ({why})", remedy))
