# SPDX-License-Identifier: Apache-2.0
"""IDEAL (Zhang, Chen, Lyu, ICLR 2023, arXiv 2205.11158): a generator that asks the student, and one call an image.

In each of 100 epochs a new generator is trained against the student, which stands for the teacher and costs no call:
cross-entropy to classes drawn beforehand, and balance of the predicted classes, weight 5. Its images are asked about
once, and the student takes some steps on all answers so far. The paper's MNIST run asks 250 images an epoch, 25,000.

Departures: soft answers, where the paper's main setting has labels alone (in the student's favour); images are not
cropped or mirrored, which digits do not bear; the answers are kept, where the released code asks the whole pool again
in each epoch, some 1.3 million calls in that run; five generator steps, of its CIFAR-10 runs, not the thirty of MNIST.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.peers.pictures import LATENT, make_generator
from benchmarks.peers.silos import CountedSilos
from benchmarks.peers.task import Pool, Task, fit_share
from fedcpsc.losses.synthesis import negative_batch_entropy
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.frozen import frozen

__all__ = ["ideal"]

_EPOCHS = 100
_GENERATOR_STEPS = 5
_BALANCE = 5.0


def ideal(silos: CountedSilos, task: Task) -> Classifier:
    """A student of the silos, asked as one teacher until the budget is spent."""
    student, pool = task.new_student(), Pool(task.seed("ideal", "pool"))
    optimiser = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    budget = silos.left
    epochs = min(_EPOCHS, budget // 2)  # batch norm needs two images
    for epoch in range(epochs):
        count = budget * (epoch + 1) // epochs - budget * epoch // epochs
        images = _invented(student, task, count, epoch)
        pool.add(images, silos.one_teacher(images))
        fit_share(student, optimiser, pool, task, epoch, epochs)
    return student


def _invented(student: Classifier, task: Task, count: int, epoch: int) -> torch.Tensor:
    """Images of a new generator, those of the step of least loss: [count, C, H, W]."""
    generator = make_generator(task.image_shape, task.seed("ideal", "generator", epoch))
    stream = torch.Generator().manual_seed(task.seed("ideal", "z", epoch))
    z, wanted = torch.randn(count, LATENT, generator=stream), torch.arange(count) % task.classes
    optimiser = torch.optim.Adam([*generator.parameters()], lr=1e-3, betas=(0.5, 0.999))
    best: torch.Tensor = generator(z).detach()
    least = float("inf")
    with frozen([student]):
        for _ in range(_GENERATOR_STEPS):
            images = generator(z)
            logits = student(images)
            loss = F.cross_entropy(logits, wanted) + _BALANCE * negative_batch_entropy(logits)
            if float(loss.detach()) < least:
                best, least = images.detach(), float(loss.detach())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return best
