# SPDX-License-Identifier: Apache-2.0
"""Rules by which many silos' answers become one soft target: one file for each."""
