# SPDX-License-Identifier: Apache-2.0
"""A federation of real processes: certificates and keys, checks, and the whole thing on loopback."""
