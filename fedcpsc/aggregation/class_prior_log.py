# SPDX-License-Identifier: Apache-2.0
"""Silos weighed by their class counts: `W_sc = n_sc / sum_t n_tc`, n_sc the images of class c that silo s reports."""

from __future__ import annotations

from fedcpsc.aggregation.rule import LogRule

__all__ = ["CLASS_PRIOR_LOG"]

CLASS_PRIOR_LOG = LogRule(
    name="class_prior_log",
    summary="mean of the answers' logarithms in which each class is decided by the silos that hold its images",
    when="where silos hold different classes and their owners share class counts",
    needs="class counts from every silo (`policy.share_class_counts`)",
    parameters=("aggregation.smoothing",),
    needs_class_reports=True,
)
