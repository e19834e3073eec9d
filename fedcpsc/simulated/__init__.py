# SPDX-License-Identifier: Apache-2.0
"""Silos that all lie on this machine: a run in one process, and figures measured past the gatekeepers."""
