"""A finished run's student as files that other tools open, with a model card."""
