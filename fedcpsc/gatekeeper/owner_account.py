# SPDX-License-Identifier: Apache-2.0
"""The owner's private account: what GNMax lost on the votes that really came. A file beside the ledger, mode 0600.

It is computed from private data and is itself private: nothing here is sent, exported or used to decide anything. A
line is written before its reply is stored, so that a crash can only overstate the loss.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcpsc.errors import SiloError, explain
from fedcpsc.privacy.gnmax import Floats, epsilon_of_curve

__all__ = ["OWNER_FILE", "OwnerAccount"]

OWNER_FILE = "owner_account.jsonl"


@dataclass(frozen=True)
class OwnerAccount:
    """An append-only file of Renyi curves."""

    path: Path

    def add(self, query_id: str, answers: int, curve: Floats) -> None:
        """Appends the loss of one query.

        Raises:
            SiloError: where the file cannot be written.
        """
        line = json.dumps({"query_id": query_id, "answers": answers, "rdp": curve.tolist()}) + "\n"
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            raise SiloError(
                explain("owner_account", str(self.path), f"cannot be written ({error.strerror})", "make it writable")
            ) from error

    def epsilon(self, delta: float) -> float | None:
        """Realised epsilon so far; None where nothing was recorded. For the owner's eyes.

        Raises:
            SiloError: where the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            lines = self.path.read_text(encoding="ascii").splitlines()
            curve = np.sum([json.loads(line)["rdp"] for line in lines], axis=0)
        except (OSError, ValueError, KeyError) as error:
            raise SiloError(
                explain("owner_account", str(self.path), f"is damaged ({error})", "the ledger's epsilon is the bound")
            ) from error
        return epsilon_of_curve(curve, delta)
