# SPDX-License-Identifier: Apache-2.0
"""The server's engine: synthesise, ask, bank, fit."""
