# SPDX-License-Identifier: Apache-2.0
"""The formats of a data set of answers. Imports next to nothing, for the command line."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["SetFormat"]


class SetFormat(StrEnum):
    """How the rows are written."""

    PARQUET = "parquet"
    SAFETENSORS = "safetensors"
