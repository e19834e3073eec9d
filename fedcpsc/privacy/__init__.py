# SPDX-License-Identifier: Apache-2.0
"""Mechanisms, accounting and noise; no torch."""
