# SPDX-License-Identifier: Apache-2.0
"""A finished model becomes a silo: what its owner says of it, its trial, a look at own pictures, its folder."""
