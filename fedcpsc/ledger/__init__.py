# SPDX-License-Identifier: Apache-2.0
"""The silo's durable record of every charge and reply: one SQLite file, tamper-evident, for years."""
