# SPDX-License-Identifier: Apache-2.0
"""One white-box round on a CPU against a port of the authors' own loop, side by side in one run.

    python -m benchmarks.white_box_speed --rounds 9 --out benchmarks/results/throughput.json

A round is one generator step and one student step, ResNet-34 -> ResNet-18, 32x32 images. The port does what the loop of
the authors' code does (commit 1c6ade1; `fedcpsc.white_box.quirks` names how it departs from the paper), in float32, as
their mixed precision is CUDA's alone: it makes Adam anew, computes and throws away weight gradients of teacher and
student, keeps the student in training mode, tensors NCHW, and the generator's graph in the student's step.

Each round is timed for the port and for three engines of ours: with the authors' quirks, all but the gradients that
nobody uses; as published, the default; and so in bfloat16. The first starts from the port's weights and gets the same z
and labels: its losses are compared to float tolerance before anything is timed. The sides take turns (ours, port, port,
ours, ...), so that whatever else the machine does meets all alike; the figure is the median of the paired ratios, of
this process's CPU time and of wall time.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import provenance
from fedcpsc.config import Precision
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.resnet import ResNet
from fedcpsc.white_box.engine import Engine
from fedcpsc.white_box.plan import WhiteBoxConfig
from fedcpsc.white_box.quirks import Quirks

TOLERANCE = 2e-3  # of the losses, relative: sums over 36 layers in another order


def logits_and_features(network: ResNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """The ResNet's logits and its pooled features of unit length: no memory format is chosen."""
    features = network.body(F.relu(network.norm(network.stem(x)))).mean((2, 3))
    return network.head(features), F.normalize(features, dim=1)


class Port:
    """One round of the authors' loop.

    Args:
        engine: engine whose networks are copied; its generator has the last norm behind tanh.
    """

    def __init__(self, engine: Engine) -> None:
        self.config, self.device = engine.config, engine.device
        plain = torch.contiguous_format
        self.teacher = copy.deepcopy(engine.teacher).to(memory_format=plain).requires_grad_(True)
        self.student = copy.deepcopy(engine.student).to(memory_format=plain).train()
        self.generator = copy.deepcopy(engine.generator).to(memory_format=plain)
        plan = self.config.student
        self.student_optimiser = torch.optim.SGD(
            self.student.parameters(), plan.learning_rate, plan.momentum, weight_decay=plan.weight_decay
        )
        self.bn_terms: dict[nn.Module, Tensor] = {}
        for module in self.teacher.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(self.look)

    def look(self, norm: nn.BatchNorm2d, given: tuple[Tensor, ...], out: Tensor) -> None:
        """Keeps a layer's term of L_BN, in the student's step too, as DeepInversion's published hook does."""
        x = given[0]
        mean = x.mean([0, 2, 3])
        var = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        self.bn_terms[norm] = (norm.running_var - var).norm() + (norm.running_mean - mean).norm()

    def round(self, stream: torch.Generator) -> tuple[float, float]:
        """Losses of the generator's step and of the student's."""
        return self.generator_step(stream), self.student_step(stream)

    def draw(self, stream: torch.Generator) -> tuple[nn.Parameter, Tensor]:
        """z and labels."""
        size, device = self.config.batch_size, self.device
        y = torch.randint(0, self.teacher.classes, (size,), generator=stream, device=device)
        return nn.Parameter(torch.randn(size, self.config.generator.nz, generator=stream, device=device)), y

    def generator_step(self, stream: torch.Generator) -> float:
        """One step of Adam; gradients of all weights are computed."""
        (z, y), plan, g = self.draw(stream), self.config.loss, self.config.generator
        optimiser = torch.optim.Adam([*self.generator.parameters(), z], g.learning_rate, g.betas)
        optimiser.zero_grad()
        x = self.generator(z, y)
        t, t_features = logits_and_features(self.teacher, x)
        s, s_features = logits_and_features(self.student, x)
        loss = (
            -F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")
            - plan.alpha * F.mse_loss(s, t.detach())
            + plan.beta * torch.stack(list(self.bn_terms.values())).sum()
            + plan.gamma * self.contrast(s_features, t_features, y)
            + plan.eta * F.cross_entropy(F.softmax(t, 1), y)
        )
        loss.backward()
        optimiser.step()
        return loss.item()

    def contrast(self, s_features: Tensor, t_features: Tensor, y: Tensor) -> Tensor:
        """Supervised contrast over both networks' features, [B, D] of unit length."""
        views = torch.cat([s_features, t_features])
        labels, others = torch.cat([y, y]), ~torch.eye(2 * len(y), dtype=torch.bool, device=y.device)
        similarity = views @ views.T / self.config.loss.temperature
        similarity = similarity - similarity.max(1, keepdim=True).values.detach()
        log_share = similarity - torch.log((torch.exp(similarity) * others).sum(1, keepdim=True))
        positive = (labels[:, None] == labels[None, :]) & others
        return -((log_share * positive).sum(1) / positive.sum(1)).mean() * (self.config.loss.temperature / 0.07)

    def student_step(self, stream: torch.Generator) -> float:
        """One step of SGD."""
        (z, y), plan = self.draw(stream), self.config.loss
        self.student_optimiser.zero_grad()
        x = self.generator(z, y).detach()
        with torch.no_grad():
            t, _ = logits_and_features(self.teacher, x)
        s, _ = logits_and_features(self.student, x)
        loss = (
            F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")
            + plan.alpha * F.mse_loss(s, t)
            + plan.eta * F.cross_entropy(F.softmax(s, 1), y)
        )
        loss.backward()
        self.student_optimiser.step()
        return loss.item()


def settled_teacher(seed: int, batch: int = 32) -> ResNet:
    """A ResNet-34 whose batch-norm statistics are those of its own activations: no layer over- or underflows."""
    teacher = build_classifier("resnet34", 10, (3, 32, 32), seed=seed)
    assert isinstance(teacher, ResNet)
    teacher.train()
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(20):
            teacher(torch.rand(batch, 3, 32, 32, generator=stream) * 2 - 1)
    return teacher


def losses_of(side: Engine | Port, seed: int) -> tuple[float, float]:
    """Both losses of the round whose z and labels follow from `seed`; the device is waited for."""
    first, second = side.round(torch.Generator(side.device).manual_seed(seed))
    return (float(first[0]), float(second[0])) if isinstance(first, Tensor) else (first, second)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of this process's CPU and of the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def made(teacher: ResNet, batch: int, quirks: Quirks, precision: Precision, device: str) -> Engine:
    """An engine whose learning rates are gentle: losses are compared over several rounds."""
    config = WhiteBoxConfig.model_validate(
        {
            "batch_size": batch,
            "generator_steps": 1,
            "student_steps": 1,
            "precision": precision,
            "student": {"learning_rate": 1e-3},
            "generator": {"learning_rate": 1e-5},
        }
    )
    return Engine(config, copy.deepcopy(teacher), torch.device(device), quirks)


def measure(batch: int, rounds: int, threads: int, device: str = "cpu") -> list[dict[str, Any]]:
    """Rows of throughput.json, one for each engine of ours.

    Args:
        batch: number of images in a batch, >= 2.
        rounds: number of rounds that are timed, >= 1; one more warms up.
        threads: number of threads, as recorded.
        device: device of both sides, `cpu` or `cuda`.

    Raises:
        AssertionError: where the losses of the engine with the authors' quirks are not the port's.
    """
    theirs = replace(Quirks.all(True), unused_gradients=False)
    teacher = settled_teacher(0, min(32, 2 * batch))
    engines = {
        "the authors' quirks, float32": made(teacher, batch, theirs, "float32", device),
        "as published, float32": made(teacher, batch, Quirks(), "float32", device),
        "as published, bfloat16": made(teacher, batch, Quirks(), "bfloat16", device),
    }
    same = engines["the authors' quirks, float32"]
    port = Port(same)
    compared = [(losses_of(same, seed), losses_of(port, seed)) for seed in range(2)]
    worst = max(abs(a - b) / abs(b) for ours, others in compared for a, b in zip(ours, others, strict=True))
    assert worst < TOLERANCE, f"the losses differ by {worst:.1e}: {compared}"
    sides: dict[str, Engine | Port] = {**engines, "port": port}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for seed in range(1 + rounds):
        for name in list(sides) if seed % 2 else reversed(sides):
            took = timed(lambda side=sides[name], seed=seed: losses_of(side, seed))  # type: ignore[misc]
            if seed:  # the first warms up
                seconds[name].append(took)
        took_now = {name: f"{each[-1][0]:.2f}" for name, each in seconds.items() if each}
        print(f"round {seed} of {rounds}, CPU seconds: {took_now}", file=sys.stderr, flush=True)
    return [
        {
            "what": "white-box round (1 generator + 1 student step), ResNet-34 -> ResNet-18",
            "setting": f"32x32, batch {batch}, {device.upper()}; {name}",
            **paired(seconds[name], seconds["port"]),
            "clock": "CPU seconds of the process; wall_ratio beside it",
            "rounds": rounds,
            "largest_loss_difference": float(f"{worst:.1e}") if engine is same else None,
            "device": device,
            "threads": threads,
            "config": {
                "batch_size": batch,
                "precision": engine.config.precision,
                "loss": engine.config.loss.model_dump(),
                "generator": engine.config.generator.model_dump(),
            },
            **provenance(),
        }
        for name, engine in engines.items()
    ]


def paired(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians of CPU seconds, and of the ratios of neighbouring rounds."""
    ratios, wall_ratios = ([b[i] / a[i] for a, b in zip(ours, theirs, strict=True)] for i in (0, 1))
    return {
        "ours_s": round(statistics.median(a[0] for a in ours), 3),
        "port_s": round(statistics.median(b[0] for b in theirs), 3),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "wall_ratio": round(statistics.median(wall_ratios), 3),
    }


def main() -> int:
    """Measures against the port and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="throughput.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = measure(given.batch, given.rounds, given.threads)
    Path(given.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(json.dumps([{k: v for k, v in row.items() if k not in {"config", "versions"}} for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
