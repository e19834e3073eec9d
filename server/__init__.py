# SPDX-License-Identifier: Apache-2.0
"""The Flower ServerApp: configuration to run."""
