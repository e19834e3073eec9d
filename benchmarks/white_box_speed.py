# SPDX-License-Identifier: Apache-2.0
"""One white-box round on a CPU against a straightforward port of the same maths, side by side in one run.

    python -m benchmarks.white_box_speed --rounds 9 --out benchmarks/results/throughput.json

A round is one generator step and one student step, ResNet-34 -> ResNet-18, 32x32 images. Both sides start from the same
weights and get the same z and labels; their losses are compared to float tolerance before anything is timed. Rounds
alternate (ours, port, port, ours, ...), so that whatever else the machine does meets both alike; the figure is the
median of the paired ratios, of this process's CPU time and of wall time.

Two ports, each as one would write the paper's equations down: weight gradients of the frozen networks are computed and
thrown away, tensors are NCHW, batch-norm statistics as in DeepInversion's published hook. `repeated` asks the teacher
once for logits and once more for features, `shared` takes both from one pass.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import provenance
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.resnet import ResNet
from fedcpsc.white_box.engine import Engine
from fedcpsc.white_box.plan import WhiteBoxConfig

TOLERANCE = 2e-3  # of the losses, relative: sums over 36 layers in another order


def features(network: ResNet, x: Tensor) -> Tensor:
    """The ResNet's pooled features as its paper writes them: no memory format is chosen."""
    return network.body(F.relu(network.norm(network.stem(x)))).mean((2, 3))


class Port:
    """The equations of `fedcpsc.white_box.objective`, written plainly.

    Args:
        engine: whose networks are copied.
        repeated: one pass of the teacher for logits, another for features.
    """

    def __init__(self, engine: Engine, repeated: bool) -> None:
        self.config, self.repeated = engine.config, repeated
        plain = torch.contiguous_format
        self.teacher = copy.deepcopy(engine.teacher).to(memory_format=plain).requires_grad_(True)
        self.student = copy.deepcopy(engine.student).to(memory_format=plain)
        self.generator = copy.deepcopy(engine.generator).to(memory_format=plain)
        plan, g = self.config.student, self.config.generator
        self.z = nn.Parameter(torch.empty_like(engine.z))
        moved = [*self.generator.parameters(), self.z]
        self.generator_optimiser = torch.optim.Adam(moved, g.learning_rate, g.betas)
        self.student_optimiser = torch.optim.SGD(
            self.student.parameters(), plan.learning_rate, plan.momentum, weight_decay=plan.weight_decay
        )
        self.bn_terms: list[Tensor] = []
        for module in self.teacher.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(self.look)

    def look(self, norm: nn.BatchNorm2d, given: tuple[Tensor, ...], out: Tensor) -> None:
        x = given[0]
        mean = x.mean([0, 2, 3])
        var = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        self.bn_terms.append((norm.running_var - var).norm() + (norm.running_mean - mean).norm())

    def round(self, stream: torch.Generator) -> tuple[float, float]:
        return self.generator_step(stream), self.student_step(stream)

    def draw(self, stream: torch.Generator) -> Tensor:
        return torch.randint(0, self.teacher.classes, (len(self.z),), generator=stream, device=self.z.device)

    def generator_step(self, stream: torch.Generator) -> float:
        y, plan = self.draw(stream), self.config.loss
        self.z.data.normal_(generator=stream)
        self.student.eval()
        x = self.generator(self.z, y)
        self.bn_terms.clear()
        t_features = features(self.teacher, x)
        t = self.teacher.head(t_features)
        bn = sum(self.bn_terms)
        if self.repeated:
            t_features = features(self.teacher, x)
        s_features = features(self.student, x)
        s = self.student.head(s_features)
        loss = (
            -F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")
            - plan.alpha * F.mse_loss(s, t)
            + plan.beta * bn
            + plan.gamma * self.contrast(s_features, t_features, y)
            + plan.eta * F.cross_entropy(t, y)
        )
        self.generator_optimiser.zero_grad()
        loss.backward()
        self.generator_optimiser.step()
        return loss.item()

    def contrast(self, s_features: Tensor, t_features: Tensor, y: Tensor) -> Tensor:
        views = F.normalize(torch.cat([s_features, t_features]), dim=1)
        labels, others = torch.cat([y, y]), ~torch.eye(2 * len(y), dtype=torch.bool, device=y.device)
        similarity = torch.exp(views @ views.T / self.config.loss.temperature)
        log_share = torch.log(similarity / (similarity * others).sum(1, keepdim=True))
        positive = (labels[:, None] == labels[None, :]) & others
        return -((log_share * positive).sum(1) / positive.sum(1)).mean()

    def student_step(self, stream: torch.Generator) -> float:
        y, plan = self.draw(stream), self.config.loss
        self.student.train()
        with torch.no_grad():
            x = self.generator(torch.empty_like(self.z).normal_(generator=stream), y)
            t = self.teacher.head(features(self.teacher, x))
        s = self.student.head(features(self.student, x))
        loss = (
            F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")
            + plan.alpha * F.mse_loss(s, t)
            + plan.eta * F.cross_entropy(s, y)
        )
        self.student_optimiser.zero_grad()
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
    """Both losses of the round whose z and labels follow from `seed`; a GPU is waited for."""
    first, second = side.round(torch.Generator(side.z.device).manual_seed(seed))
    return (float(first[0]), float(second[0])) if isinstance(first, Tensor) else (first, second)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of this process's CPU and of the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def measure(batch: int, rounds: int, threads: int, repeated: bool, device: str = "cpu") -> dict[str, Any]:
    """One row of throughput.json; raises AssertionError where the losses differ."""
    config = WhiteBoxConfig.model_validate(
        {
            "batch_size": batch,
            "generator_steps": 1,
            "student_steps": 1,
            "student": {"learning_rate": 1e-3},  # gentle: the losses of both sides are compared over several rounds
            "generator": {"learning_rate": 1e-5},
        }
    )
    engine = Engine(config, settled_teacher(0, min(32, 2 * batch)), torch.device(device))
    port = Port(engine, repeated)
    compared = [(losses_of(engine, seed), losses_of(port, seed)) for seed in range(2)]
    worst = max(abs(a - b) / abs(b) for ours, theirs in compared for a, b in zip(ours, theirs, strict=True))
    assert worst < TOLERANCE, f"the losses differ by {worst:.1e}: {compared}"
    ours, theirs = [], []
    for seed in range(2, 2 + rounds):
        sides: list[tuple[Engine | Port, list[tuple[float, float]]]] = [(engine, ours), (port, theirs)]
        for side, seconds in sides if seed % 2 else reversed(sides):
            seconds.append(timed(lambda side=side, seed=seed: losses_of(side, seed)))
    ratios, wall_ratios = ([b[i] / a[i] for a, b in zip(ours, theirs, strict=True)] for i in (0, 1))
    return {
        "what": "white-box round (1 generator + 1 student step), ResNet-34 -> ResNet-18",
        "setting": f"32x32, batch {batch}, {device.upper()}; "
        f"port with its teacher pass {'repeated' if repeated else 'shared'}",
        "ours_s": round(statistics.median(a[0] for a in ours), 3),
        "port_s": round(statistics.median(b[0] for b in theirs), 3),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "wall_ratio": round(statistics.median(wall_ratios), 3),
        "clock": "CPU seconds of the process; wall_ratio beside it",
        "rounds": rounds,
        "largest_loss_difference": float(f"{worst:.1e}"),
        "device": device,
        "threads": threads,
        "config": {"batch_size": batch, "loss": config.loss.model_dump(), "generator": config.generator.model_dump()},
        **provenance(),
    }


def main() -> int:
    """Measures against both ports and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="throughput.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measure(given.batch, given.rounds, given.threads, repeated) for repeated in (True, False)]
    Path(given.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(json.dumps([{k: v for k, v in row.items() if k not in {"config", "versions"}} for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
