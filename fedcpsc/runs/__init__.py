# SPDX-License-Identifier: Apache-2.0
"""A run's folder: what its files are called and hold, how they are read, and who may work in it."""
