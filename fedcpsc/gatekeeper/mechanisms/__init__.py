# SPDX-License-Identifier: Apache-2.0
"""Mechanisms that a policy may name: one file each, with its section of the policy and what it promises."""
