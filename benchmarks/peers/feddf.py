# SPDX-License-Identifier: Apache-2.0
"""FedDF (Lin, Kong, Stich, Jaggi, NeurIPS 2020, arXiv 2006.07242), one-shot: distilled on the server's own pictures.

The student is fitted to the softmax of the silos' mean logits on unlabelled public pictures. Logits may be had from
probabilities, whose logarithms are logits less a number that softmax does not see: no weights are needed.

Departures: one round, where the paper goes on for many; the student begins from random weights, not from the average of
the silos', whose networks are of another width; fedcpsc's own fit in place of Adam with early stopping on labelled
validation images, which this server has not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.fits import fitted
from benchmarks.peers.silos import CountedSilos, PeerError
from benchmarks.peers.task import Task
from fedcpsc.errors import explain
from fedcpsc.models.classifier import Classifier

__all__ = ["feddf", "mean_logits"]

_TOGETHER = 500


def feddf(silos: CountedSilos, task: Task) -> Classifier:
    """A student of the silos, asked about each public picture once, until the pictures or the budget are spent.

    Raises:
        PeerError: the server has no pictures.
    """
    if task.public is None:
        remedy = "name a folder below --data with a train.parquet (--public)"
        raise PeerError(explain("peer", "FedDF", "needs public pictures, and the server has none", remedy))
    pictures = task.public[: silos.left]
    answers = torch.cat([silos.answers(part) for part in torch.split(pictures, _TOGETHER)], 1)
    return fitted(task, pictures, mean_logits(answers), "feddf")


def mean_logits(answers: Tensor) -> Tensor:
    """Softmax of the mean of the logits behind probabilities [S, N, K]: [N, K]."""
    return torch.softmax(answers.clamp_min(1e-12).log().mean(0), 1)
