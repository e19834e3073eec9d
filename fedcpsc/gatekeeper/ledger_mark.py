"""Where the high-water mark of a silo's ledger lies."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.gatekeeper.policy import Policy

__all__ = ["MARK_FILE", "mark_path"]

MARK_FILE = "ledger.mark"


def mark_path(folder: Path, policy: Policy) -> Path | None:
    """The high-water mark of the ledger in a silo's folder; None where its policy names none."""
    del folder
    return Path(policy.high_water_mark) if policy.high_water_mark else None
