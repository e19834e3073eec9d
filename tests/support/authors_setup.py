# SPDX-License-Identifier: Apache-2.0
"""The networks, z and labels for which `tests/white_box/authors_code.json` holds values of the authors' code.

All is drawn on the CPU in float32 from fixed seeds. `checksums` in the JSON tell whether this torch draws the same.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import torch
from torch import Tensor, nn

from fedcpsc.models.classifier import initialise
from fedcpsc.models.device import to_device
from fedcpsc.models.resnet import ResNet
from fedcpsc.typed_yaml import validate
from fedcpsc.white_box import engine
from fedcpsc.white_box.engine import Engine
from fedcpsc.white_box.plan import WhiteBoxConfig
from fedcpsc.white_box.quirks import Quirks

CLASSES, SHAPE, BATCH, NZ = 10, (3, 32, 32), 16, 256


def settled(network: nn.Module, seed: int) -> nn.Module:
    """Batch-norm statistics of eight batches of noise, and one-dimensional parameters moved off their defaults."""
    stream = torch.Generator().manual_seed(seed)
    network.train()
    with torch.no_grad():
        for _ in range(8):
            network(torch.rand(16, *SHAPE, generator=stream) * 2 - 1)
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=stream))
    return network


@functools.cache
def _networks() -> tuple[ResNet, ResNet]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher, student = ResNet(CLASSES, SHAPE, (1, 1, 1, 1)), ResNet(CLASSES, SHAPE, (1, 1, 1, 1))
        initialise(teacher)
        initialise(student)
    return settled(teacher, 1).eval(), settled(student, 2).train()


def networks() -> tuple[ResNet, ResNet]:
    """Teacher (evaluation mode) and student (training mode): CIFAR-form ResNets with one block a stage."""
    return copy.deepcopy(_networks())


def move_embeddings(generator: nn.Module) -> None:
    """Class embeddings that are not all 1 and 0."""
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.Embedding):
                module.weight += 0.1 * torch.randn(module.weight.shape, generator=stream)


def draws(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """`count` pairs of z, float32 [16, 256], and labels, int64 [16]: all z come first in the stream."""
    stream = torch.Generator().manual_seed(seed)
    z = [torch.randn(BATCH, NZ, generator=stream) for _ in range(count)]
    return [(each, torch.randint(0, CLASSES, (BATCH,), generator=stream)) for each in z]


class AuthorsEngine(Engine):
    """The engine with all quirks on, over the networks, z and labels of the authors' values.

    Args:
        steps: steps of the phase that is to be run, each with draws of its own.
        seed: seed of the draws.
        log_l2: whether L_2 has its CIFAR-10 form.
        dtype: number format of everything.

    One quirk is off: gradients of weights that nobody uses take a third of the time and change nothing, as a test of
    the engine shows.
    """

    def __init__(self, steps: int, seed: int, *, log_l2: bool = False, dtype: torch.dtype = torch.float32) -> None:
        tree = {
            "batch_size": BATCH,
            "generator_steps": steps,
            "student_steps": steps,
            "loss": {"log_l2": log_l2},
        }
        config = validate(WhiteBoxConfig, tree, "test")
        teacher, student = networks()
        quirks = replace(Quirks.all(True), unused_gradients=False)
        super().__init__(config, teacher, torch.device("cpu"), quirks)
        move_embeddings(self.generator)
        self.student = to_device(student, self.device)
        for network in (self.teacher, self.student, self.generator):
            network.to(dtype)
        self.z.data = self.z.data.to(dtype)
        plan = config.student
        self.student_optimiser = torch.optim.SGD(
            self.student.parameters(), plan.learning_rate, plan.momentum, weight_decay=plan.weight_decay
        )
        self._given = iter([(z.to(dtype), y) for z, y in draws(steps, seed)])

    def _draws(self, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        return next(self._given)

    def _images(self, z: Tensor, y: Tensor) -> Tensor:
        return self.generator(z, y)  # in its own number format, where the engine's are float32


def forward_in_own_format(network: ResNet, x: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """`forward_float32`, but the results stay in the format they were computed in."""
    return network.forward_with_features(x)


def patched_for(monkeypatch, dtype: torch.dtype) -> None:
    """Lets the engine compute in `dtype`: its own passes end in float32."""
    if dtype != torch.float32:
        monkeypatch.setattr(engine, "forward_float32", forward_in_own_format)
