"""Mechanisms, accounting and noise; no torch."""
