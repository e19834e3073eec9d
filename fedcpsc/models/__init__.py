# SPDX-License-Identifier: Apache-2.0
"""Classifiers (teachers, students, proxies) and the conditional generator."""
