# SPDX-License-Identifier: Apache-2.0
"""A finished run's student as files that other tools open, with a model card."""
