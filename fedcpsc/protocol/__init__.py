# SPDX-License-Identifier: Apache-2.0
"""What crosses the wire between server and silo, and nothing else."""
