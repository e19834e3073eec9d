# SPDX-License-Identifier: Apache-2.0
"""Procedural images that need no teacher and no data."""
