"""Membership inference attacks: one object in one file each."""
