# SPDX-License-Identifier: Apache-2.0
"""Networks that are looked through, not trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

__all__ = ["frozen"]


@contextmanager
def frozen(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode, and no gradients for weights: the backward pass then computes input gradients alone."""
    states = [(net, net.training, [p.requires_grad for p in net.parameters()]) for net in networks]
    for net in networks:
        net.eval().requires_grad_(False)
    try:
        yield
    finally:
        for net, training, wanted in states:
            net.train(training)
            for parameter, wants in zip(net.parameters(), wanted, strict=True):
                parameter.requires_grad_(wants)
