"""Procedural images that need no teacher and no data."""
