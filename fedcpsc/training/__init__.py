# SPDX-License-Identifier: Apache-2.0
"""Training a silo's teacher: plainly, by DP-SGD, or as K shards; with canaries where its owner asks for them."""
