# SPDX-License-Identifier: Apache-2.0
"""Membership inference attacks: one object in one file each."""
