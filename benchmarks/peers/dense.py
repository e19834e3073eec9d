# SPDX-License-Identifier: Apache-2.0
"""DENSE (Zhang, Chen, Li, Lyu, Wu, Ding, Shen, Wu, NeurIPS 2022, arXiv 2112.12371) and one-shot FedAvg: weights shared.

In each epoch a new generator is trained through all teachers at once: cross-entropy of their mean logits to classes
drawn beforehand, their batch norms' statistics (weight 1), and where ensemble and student name unlike classes the
divergence between them (weight 0.5). The student is then distilled on the images of all epochs. As published: 200
epochs of 30 generator steps on 128 images, which are 768,000 images through every teacher.

Departures: the ensemble's word on the images that are kept is that of the step in which they were made, where the
released code asks for it again in every epoch; images are not cropped or mirrored; smaller batches where the budget is
small, so that there are at least four epochs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.pictures import LATENT, make_generator
from benchmarks.peers.silos import CountedSilos, PeerError
from benchmarks.peers.task import Pool, Task, fit_share
from fedcpsc.errors import explain
from fedcpsc.losses.synthesis import batch_norm_prior
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.frozen import frozen
from fedcpsc.white_box.objective import batch_norm_inputs, batch_norms

__all__ = ["averaged", "dense"]

_EPOCHS, _LEAST_EPOCHS = 200, 4
_GENERATOR_STEPS = 30
_SMALLEST, _LARGEST = 16, 128
_STATISTICS, _DIVERGENCE = 1.0, 0.5


def dense(silos: CountedSilos, task: Task) -> Classifier:
    """A student of the silos' networks, until the budget is spent.

    Raises:
        PeerError: a silo gives answers alone.
    """
    silos.networks("DENSE")
    student, pool = task.new_student(), Pool(task.seed("dense", "pool"))
    optimiser = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
    budget = silos.left
    batch = min(budget, _LARGEST, max(_SMALLEST, budget // (_GENERATOR_STEPS * _LEAST_EPOCHS)))
    epochs = min(_EPOCHS, max(1, budget // (batch * _GENERATOR_STEPS)))
    for epoch in range(epochs):
        pool.add(*_invented(silos, student, task, min(_GENERATOR_STEPS, silos.left // batch), batch, epoch))
        fit_share(student, optimiser, pool, task, epoch, epochs)
    return student


def averaged(networks: Sequence[Classifier], sizes: Sequence[float]) -> Classifier:
    """One-shot FedAvg (McMahan et al. 2017): the mean of the networks' weights, each weighted by its silo's images.

    The first network is changed and given back.

    Raises:
        PeerError: they are unlike.
    """
    states = [network.state_dict() for network in networks]
    shapes = [{key: tuple(value.shape) for key, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        remedy = "give all silos one architecture and width"
        raise PeerError(explain("peer", "FedAvg", "averages weights, and the silos' networks are unlike", remedy))
    shares = torch.tensor(sizes, dtype=torch.float32) / sum(sizes)
    mean = {}
    for key, value in states[0].items():
        stacked = torch.stack([state[key].float() for state in states])
        mean[key] = torch.tensordot(shares, stacked, dims=1).to(value.dtype)
    networks[0].load_state_dict(mean)
    return networks[0]


def _invented(
    silos: CountedSilos, student: Classifier, task: Task, steps: int, batch: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Images of a new generator, those of the step of least loss, and the ensemble's word on them."""
    generator = make_generator(task.image_shape, task.seed("dense", "generator", epoch))
    stream = torch.Generator().manual_seed(task.seed("dense", "z", epoch))
    z = torch.randn(batch, LATENT, generator=stream)
    wanted = torch.randint(task.classes, (batch,), generator=stream)
    optimiser = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    best, least = (z.new_zeros(0), z.new_zeros(0)), float("inf")
    norms = [norm for network in silos.networks("DENSE") for norm in batch_norms(network)]
    with frozen([student]), batch_norm_inputs(norms) as seen:
        for _ in range(steps):
            images = generator(z)
            ensemble = silos.logits(images, "DENSE").mean(0)
            loss = F.cross_entropy(ensemble, wanted) - _DIVERGENCE * _disagreement(ensemble, student(images))
            if norms:
                means = [norm.running_mean for norm in norms if norm.running_mean is not None]
                variances = [norm.running_var for norm in norms if norm.running_var is not None]
                loss = loss + _STATISTICS * batch_norm_prior([seen[norm] for norm in norms], means, variances)
            if float(loss.detach()) < least:
                best, least = (images.detach(), torch.softmax(ensemble.detach(), 1)), float(loss.detach())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return best


def _disagreement(ensemble: Tensor, student: Tensor) -> Tensor:
    """Mean of KL(ensemble || student), taken as 0 where both name the same class; both are logits [N, K]."""
    each = F.kl_div(F.log_softmax(student, 1), F.log_softmax(ensemble, 1), reduction="none", log_target=True).sum(1)
    return (each * (ensemble.argmax(1) != student.argmax(1))).mean()
