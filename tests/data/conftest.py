# SPDX-License-Identifier: Apache-2.0
"""Sources that several tests read."""

import pytest
from support.picture_sources import pictures, png, write_parquet


@pytest.fixture
def parquet_root(tmp_path):
    """12 training and 4 test images, 6x6 grey, 3 classes."""
    train, test = pictures(12), pictures(4, seed=1)
    write_parquet(tmp_path / "train.parquet", [png(p) for p in train], [0, 1, 2] * 4)
    write_parquet(tmp_path / "test.parquet", [png(p) for p in test], [0, 1, 2, 0])
    return tmp_path
