# SPDX-License-Identifier: Apache-2.0
"""Measurements: run by hand, results committed under `results/`; nothing here is timed by the test suite."""
