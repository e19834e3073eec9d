# SPDX-License-Identifier: Apache-2.0
"""Audits: what an attack proves to have leaked, compared with what was claimed."""
