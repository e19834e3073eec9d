# SPDX-License-Identifier: Apache-2.0
"""DFME (Truong, Maini, Walls, Papernot, CVPR 2021, arXiv 2011.14779): a generator taught by estimated gradients.

Student and teacher play a game over their L1 distance in logits: the student lessens it on the generator's images, five
steps; the generator enlarges it, one step. What of its gradient passes through the teacher is estimated by forward
differences along one random direction, with two calls an image. Logits are recovered from probabilities: logarithms
less their mean. The paper's budgets are 2 million calls (SVHN) and 20 million (CIFAR-10), batches of 256.

Departure: smaller batches where the budget is small, so that the game has hundreds of rounds at 20,000 calls instead of
eleven (and 35 at 2,000 instead of one). One teacher of digits 8x8, 20,000 calls: 42.7 % so, 20.4 % with 100 rounds and
a student learning rate of 0.03.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.pictures import LATENT, Generator, make_generator
from benchmarks.peers.silos import CountedSilos
from benchmarks.peers.task import Task
from fedcpsc.models.classifier import Classifier

__all__ = ["dfme", "estimated_gradient", "recovered_logits"]

_STUDENT_STEPS = 5
_CALLS_A_ROUND = 2 + _STUDENT_STEPS  # for each image of a batch
_ROUNDS = 500  # as far as the smallest batch allows
_SMALLEST, _LARGEST = 8, 256
_EPSILON = 1e-3
_STUDENT_RATE, _GENERATOR_RATE = 0.1, 1e-4
_DECAYS, _DECAY = (0.1, 0.3, 0.5), 0.3  # shares of the budget after which both rates fall


def dfme(silos: CountedSilos, task: Task) -> Classifier:
    """A student of the silos, asked as one teacher until not one round of the game more can be paid."""
    student, budget = task.new_student(), silos.left
    generator = make_generator(task.image_shape, task.seed("dfme", "generator"))
    stream = torch.Generator().manual_seed(task.seed("dfme", "z"))
    batch = max(2, min(budget // _CALLS_A_ROUND, _LARGEST, max(_SMALLEST, budget // (_CALLS_A_ROUND * _ROUNDS))))
    fits = torch.optim.SGD(student.parameters(), lr=_STUDENT_RATE, momentum=0.9, weight_decay=5e-4)
    leads = torch.optim.Adam(generator.parameters(), lr=_GENERATOR_RATE)
    student.train()
    while silos.left >= _CALLS_A_ROUND * batch:
        spent = 1 - silos.left / budget
        decayed = _DECAY ** sum(spent >= share for share in _DECAYS)
        fits.param_groups[0]["lr"], leads.param_groups[0]["lr"] = _STUDENT_RATE * decayed, _GENERATOR_RATE * decayed
        before = generator.before_tanh(torch.randn(batch, LATENT, generator=stream))
        leads.zero_grad(set_to_none=True)
        before.backward(estimated_gradient(silos, student, before.detach(), stream))  # type: ignore[no-untyped-call]
        leads.step()
        for _ in range(_STUDENT_STEPS):
            _fit_step(silos, student, generator, fits, torch.randn(batch, LATENT, generator=stream))
    return student


def estimated_gradient(silos: CountedSilos, student: Classifier, before: Tensor, stream: torch.Generator) -> Tensor:
    """Gradient of the generator's loss, -L1, with respect to what tanh makes pixels of; [N, C, H, W].

    Costs 2 N calls. `d / epsilon (L(x + epsilon u) - L(x)) u`, u uniform on the sphere of d dimensions.
    """
    count, dimensions = len(before), before[0].numel()
    u = torch.randn(before.shape, generator=stream)
    u = u / u.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    pixels = torch.tanh(torch.cat([before, before + _EPSILON * u]))
    training = student.training
    student.eval()
    with torch.no_grad():
        apart = -(student(pixels) - recovered_logits(silos.one_teacher(pixels))).abs().mean(1)
    student.train(training)
    slope = dimensions / _EPSILON * (apart[count:] - apart[:count])
    estimate: Tensor = slope.view(-1, 1, 1, 1) * u / count
    return estimate


def recovered_logits(probabilities: Tensor) -> Tensor:
    """Logits [N, K] of mean 0 of probabilities [N, K]."""
    logs = probabilities.clamp_min(1e-12).log()
    return logs - logs.mean(1, keepdim=True)


def _fit_step(
    silos: CountedSilos, student: Classifier, generator: Generator, optimiser: torch.optim.Optimizer, z: Tensor
) -> None:
    with torch.no_grad():
        pixels = generator(z)
    wanted = recovered_logits(silos.one_teacher(pixels))
    optimiser.zero_grad(set_to_none=True)
    (student(pixels) - wanted).abs().mean().backward()
    optimiser.step()
