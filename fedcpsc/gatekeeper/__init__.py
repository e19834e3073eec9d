# SPDX-License-Identifier: Apache-2.0
"""The silo's side: policy, ledger, teacher, and the gatekeeper that joins them."""
