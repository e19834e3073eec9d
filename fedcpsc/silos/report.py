# SPDX-License-Identifier: Apache-2.0
"""What became of one silo when the silos of a run were made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedcpsc.gatekeeper.policy import POLICY_FILE

__all__ = ["SiloReport"]


@dataclass(frozen=True)
class SiloReport:
    """What became of one silo.

    Attributes:
        silo: name of the silo.
        folder: path of its folder.
        architecture: name of its teacher's architecture.
        train_size: number of private images; None where the owner of an adopted teacher did not say.
        reused: whether the teacher was there already.
        policy_kept: whether its `policy.yaml` was edited by its owner and differs from the configuration.
        accuracy: share of the run's held-out images that the teacher classifies right, in [0, 1]; None where there are
            none. The simulation's measuring instrument: it is written into no file of the silo.
        seconds: time spent on this silo.
        adopted: whether the teacher is its owner's own, so that nothing in the folder was touched.
        kept: folder of the teacher that this one replaced, in the silo's `past/`; None where there was none.
    """

    silo: str
    folder: Path
    architecture: str
    train_size: int | None
    reused: bool
    policy_kept: bool
    accuracy: float | None
    seconds: float
    adopted: bool = False
    kept: Path | None = None

    def __str__(self) -> str:
        measured = "" if self.accuracy is None else f", {100 * self.accuracy:.1f} % of held-out images right"
        if self.adopted:
            return f"{self.silo}: {self.architecture}, adopted, used as it is{measured}"
        done = "reused" if self.reused else f"made in {self.seconds:.1f} s"
        owners = f"; {POLICY_FILE} was edited by its owner and kept" if self.policy_kept else ""
        before = f"; the teacher before it is kept in {self.kept}" if self.kept else ""
        return f"{self.silo}: {self.architecture}, {self.train_size} private images{measured}, {done}{owners}{before}"
