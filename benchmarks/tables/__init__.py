# SPDX-License-Identifier: Apache-2.0
"""The tables of README and docs, from the JSON under `benchmarks/results/`."""
