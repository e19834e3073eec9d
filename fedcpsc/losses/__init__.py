# SPDX-License-Identifier: Apache-2.0
"""Losses, one family a file: tensors in, scalar out, no state."""
