"""The silo's side: policy, ledger, teacher, and the gatekeeper that joins them."""
