# SPDX-License-Identifier: Apache-2.0
"""What the file of an exported student says of itself, and where: its writer and its reader spell it by these names."""

from __future__ import annotations

__all__ = ["ABOUT_FILE", "INPUT_SCALE"]

ABOUT_FILE = "about.json"
"""An extra file in torch's archive; ONNX and safetensors have the same entries as metadata."""
INPUT_SCALE = "float32 [N, C, H, W], pixel / 127.5 - 1, so in [-1, 1]"
"""The entry `input`."""
