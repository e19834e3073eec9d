"""Losses, one family a file: tensors in, scalar out, no state."""
