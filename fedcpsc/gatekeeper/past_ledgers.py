"""Ledgers that were set aside, in `past/` of a silo's folder."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.gatekeeper.ledger import Ledger

__all__ = ["check_past"]


def check_past(folder: Path, population: str, ledger: Ledger) -> None:
    """Does nothing where all that the ledgers in `past/` hold is counted in the population's own."""
