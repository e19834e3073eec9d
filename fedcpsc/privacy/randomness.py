"""Where the noise that protects privacy comes from."""

from __future__ import annotations

__all__ = ["NOISE_SOURCE"]

NOISE_SOURCE = "chacha20-os-urandom-1"
