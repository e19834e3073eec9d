# SPDX-License-Identifier: Apache-2.0
"""The digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedcpsc.data.readers.source import DataSource, Split, SplitName
from fedcpsc.silo_config import DataConfig

__all__ = ["DIGITS"]


class _Digits(DataSource):
    def has_split(self, folder: Path, split: SplitName) -> bool:
        del folder
        return split == "train"

    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        del config, folder, split
        from sklearn.datasets import load_digits  # noqa: PLC0415 (slow to import, and only this source needs it)

        digits = load_digits()
        levels = np.round(digits.images * 255 / 16).astype(np.uint8)  # [1797, 8, 8], stored as 0..16
        return Split(list(levels), digits.target.astype(np.int64), tuple("0123456789"), "digits")


DIGITS = _Digits(
    name="digits",
    summary="1,797 handwritten digits of 8x8 grey pixels that come with scikit-learn, without a test split",
    when="to try things out in minutes, with no file of your own",
    parameters=("data.test_share",),
    needs_folder=False,
)
