# SPDX-License-Identifier: Apache-2.0
"""CPSC-DFKD as published, over a local teacher whose gradients and statistics are open to it."""
