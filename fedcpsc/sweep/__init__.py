# SPDX-License-Identifier: Apache-2.0
"""Sweeps: runs of several settings with several seeds, over silos that are made once, to one table."""
