"""Audits: what an attack proves to have leaked, compared with what was claimed."""
