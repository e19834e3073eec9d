# SPDX-License-Identifier: Apache-2.0
"""One white-box round: generator steps against frozen teacher and student, then student steps on fresh images.

What the speed rests on, measured by `benchmarks/white_box_speed.py`: a phase computes no gradient that nobody uses, one
pass through the teacher gives logits, features and batch-norm inputs, tensors lie with channels last, and no step waits
for a figure to come back from the device.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fedcpsc.models.device import forward_float32, mixed_precision, to_device
from fedcpsc.models.frozen import frozen
from fedcpsc.models.fused import fused_on_gpu
from fedcpsc.models.registry import HeadedClassifier, build_classifier
from fedcpsc.seeding import derive_seed
from fedcpsc.white_box.adapter import build_adapter
from fedcpsc.white_box.conditioning import build_conditioned
from fedcpsc.white_box.objective import (
    Terms,
    batch_norm_inputs,
    batch_norms,
    generator_loss,
    student_loss,
)
from fedcpsc.white_box.plan import WhiteBoxConfig
from fedcpsc.white_box.quirks import Quirks

__all__ = ["Engine", "generator_rate", "student_rate"]


class Engine:
    """Generator, adapter, student and their optimisers around a frozen teacher.

    Args:
        config: the run's.
        teacher: moved to the device, put into evaluation mode and frozen for good.
        device: device that holds all of it.
        quirks: None takes what `config.reference_quirks` asks for.
    """

    def __init__(
        self, config: WhiteBoxConfig, teacher: HeadedClassifier, device: torch.device, quirks: Quirks | None = None
    ) -> None:
        self.config = config
        self.device = device
        self.quirks = quirks or Quirks.all(config.reference_quirks)
        classes, shape, seed = teacher.classes, teacher.image_shape, config.seed
        plan, g = config.student, config.generator
        student = build_classifier(plan.architecture, classes, shape, plan.width, seed=derive_seed(seed, "student"))
        generator = build_conditioned(
            g,
            classes,
            shape,
            seed=derive_seed(seed, "generator"),
            reference_order=self.quirks.norm_after_tanh,
            small_form=self.quirks.small_form,
        )
        adapter = build_adapter(student.feature_size, teacher.feature_size, derive_seed(seed, "adapter"))
        self.teacher = to_device(teacher, device).eval().requires_grad_(False)
        self.student = to_device(student, device)
        self.generator = to_device(generator, device)
        self.adapter = adapter.to(device)
        self.z = nn.Parameter(torch.empty(config.batch_size, g.nz, device=device))
        self.generator_optimiser = self._new_adam()
        self.student_optimiser = torch.optim.SGD(
            student.parameters(),
            plan.learning_rate,
            momentum=plan.momentum,
            weight_decay=plan.weight_decay,
            fused=fused_on_gpu(student.parameters()),
        )
        self._norms = batch_norms(teacher) if config.loss.beta else []

    def set_rates(self, epoch: int) -> None:
        """Learning rates of this epoch, from 0."""
        for group in self.generator_optimiser.param_groups:
            group["lr"] = generator_rate(self.config, epoch)
        for group in self.student_optimiser.param_groups:
            group["lr"] = student_rate(self.config, epoch)

    def round(self, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Generator steps, then student steps.

        Args:
            stream: random generator of z and pseudo-labels; on the engine's device.

        Returns:
            Mean terms of the two phases, [6] each in the order of `Terms.names`, on the device.
        """
        return self.generator_phase(stream), self.student_phase(stream)

    def generator_phase(self, stream: torch.Generator) -> Tensor:
        """`generator_steps` of L_G on one batch of z and labels; z itself is moved too. Returns the mean terms, [6]."""
        quirks = self.quirks
        self.generator.train()
        self.teacher.requires_grad_(quirks.unused_gradients)
        y, terms = self._new_draws(stream), []
        looked_through = [] if quirks.unused_gradients else [self.student]
        with frozen(looked_through), batch_norm_inputs(self._norms) as seen:
            self.student.train(quirks.student_in_training)
            for step in range(self.config.generator_steps):
                if step and quirks.draws_anew:
                    y = self._new_draws(stream)
                if quirks.adam_anew:
                    self.generator_optimiser = self._new_adam()
                loss = self._generator_loss(y, seen)
                self.generator_optimiser.zero_grad()
                torch.autograd.backward(loss.total)
                self.generator_optimiser.step()
                terms.append(loss.stacked())
        self.student.train()
        return torch.stack(terms).mean(0)

    def student_phase(self, stream: torch.Generator) -> Tensor:
        """`student_steps` of L_S, each on fresh images of the generator. Returns the mean terms, [6]."""
        self.student.train()
        terms = []
        for _ in range(self.config.student_steps):
            z, y = self._draws(stream)
            with torch.no_grad():
                x = self._images(z, y)
                teacher_logits, _ = forward_float32(self.teacher, x, self.config.precision)
            logits, _ = forward_float32(self.student, x, self.config.precision)
            labels = self._pseudo_labels(y, teacher_logits)
            loss = student_loss(self.config.loss, teacher_logits, logits, labels, quirks=self.quirks)
            self.student_optimiser.zero_grad()
            torch.autograd.backward(loss.total)
            self.student_optimiser.step()
            terms.append(loss.stacked())
        return torch.stack(terms).mean(0)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs beside the epoch's number: z and labels follow from (seed, epoch)."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores `state`.

        Raises:
            RuntimeError, ValueError, KeyError: it is of another configuration.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "student": self.student,
            "generator": self.generator,
            "adapter": self.adapter,
            "student_optimiser": self.student_optimiser,
            "generator_optimiser": self.generator_optimiser,
        }

    def _generator_loss(self, y: Tensor, seen: dict[nn.BatchNorm2d, Tensor]) -> Terms:
        x = self._images(self.z, y)
        teacher = forward_float32(self.teacher, x, self.config.precision)
        logits, features = forward_float32(self.student, x, self.config.precision)
        inputs = [seen[norm] for norm in self._norms]
        student = logits, self.adapter(features)
        labels = self._pseudo_labels(y, teacher[0])
        return generator_loss(self.config.loss, teacher, student, labels, self._norms, inputs, quirks=self.quirks)

    def _pseudo_labels(self, y: Tensor, teacher_logits: Tensor) -> Tensor:
        """The labels that images were made for; of a generator that sees none, the classes that the teacher sees, [B].

        Source of the latter: the one-hot loss of DAFL, arXiv 1904.01186.
        """
        return teacher_logits.argmax(1) if self.config.generator.condition == "none" else y

    def _images(self, z: Tensor, y: Tensor) -> Tensor:
        """float32 [B, C, H, W]."""
        with mixed_precision(self.device, self.config.precision):
            x: Tensor = self.generator(z, y)
        return x.float()

    def _draws(self, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """z standard normal, float32 [B, nz], and labels uniform over the classes, int64 [B]."""
        size = (self.config.batch_size,)
        y = torch.randint(0, self.teacher.classes, size, generator=stream, device=self.device)
        return torch.empty_like(self.z).normal_(generator=stream), y

    def _new_draws(self, stream: torch.Generator) -> Tensor:
        """Puts a fresh z in the place of the one that was optimised; returns fresh labels, [B]."""
        z, y = self._draws(stream)
        with torch.no_grad():
            self.z.copy_(z)
        self.generator_optimiser.state.pop(self.z, None)  # Adam's moments were of another z
        return y

    def _new_adam(self) -> torch.optim.Adam:
        plan = self.config.generator
        moved = [*self.generator.parameters(), *self.adapter.parameters(), self.z]
        return torch.optim.Adam(moved, lr=plan.learning_rate, betas=plan.betas, fused=fused_on_gpu(moved))


def student_rate(config: WhiteBoxConfig, epoch: int) -> float:
    """Of SGD: `epoch` from 0; rises linearly over the warm-up, then falls as a cosine to 0 at the end."""
    plan = config.student
    if epoch < plan.warm_up:
        return plan.learning_rate * (epoch + 1) / plan.warm_up
    share = (epoch - plan.warm_up) / (config.epochs - plan.warm_up)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def generator_rate(config: WhiteBoxConfig, epoch: int) -> float:
    """Of Adam: a tenth after each milestone passed; `epoch` from 0."""
    passed = sum(epoch >= milestone for milestone in config.generator.milestones)
    return float(config.generator.learning_rate * 0.1**passed)
