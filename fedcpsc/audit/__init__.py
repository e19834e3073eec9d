"""Audits: what an attack proves to have leaked, held against what was claimed."""
