"""Which records a silo's population has used before."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_records", "note_records"]


def check_records(folder: Path, population: str, ids: list[bytes]) -> None:
    """Does nothing where none of the records was seen under another population."""


def note_records(folder: Path, population: str, ids: list[bytes]) -> None:
    """Remembers the records as the population's."""
