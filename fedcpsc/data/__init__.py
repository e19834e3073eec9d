# SPDX-License-Identifier: Apache-2.0
"""Private and evaluation images: sources, partitions, pixels."""
