# SPDX-License-Identifier: Apache-2.0
"""Images that a Python program held in memory: what the configuration of its run says of them."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.data.readers.source import DataSource, Split, SplitName
from fedcpsc.errors import DataError, explain
from fedcpsc.silo_config import DataConfig

__all__ = ["ARRAYS"]


class _Arrays(DataSource):
    def has_split(self, folder: Path, split: SplitName) -> bool:
        del folder, split
        return False

    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        del folder
        constraint = f"names no {split} images: they were a Python program's own"
        raise DataError(explain("data.source", config.source, constraint, "name another source"))

    def place_of(self, split: SplitName) -> str:
        return f"{split} split: its images were a Python program's own"


ARRAYS = _Arrays(
    name="arrays",
    summary="images that a Python program held in memory, which only that program can give again",
    when="for nothing by hand: `fedcpsc.distill` writes it into its runs",
    needs_folder=False,
)
