"""Classifiers (teachers, students, proxies) and the conditional generator."""
