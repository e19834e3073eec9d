# SPDX-License-Identifier: Apache-2.0
"""A bank's answers as a data set that others can open: its files, their readers, and the bank that is made of it."""
