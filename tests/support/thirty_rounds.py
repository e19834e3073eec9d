# SPDX-License-Identifier: Apache-2.0
"""A finished run of 30 rounds and 5 silos, with all that a simulation measures."""

from pathlib import Path

from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.protocol.messages import ClassReport


def make_run(folder: Path) -> None:
    """30 rounds, 5 silos, 10 classes, 28x28; one silo's budget ends early."""
    small = {
        "silos__count": 5,
        "queries__rounds": 30,
        "queries__answers_per_silo": 900,
        "student__steps_per_round": 1,
        "student__committee": 1,
        "student__final_steps": 4,
        "synthesis__steps": 1,
        "synthesis__candidates": 1,
        "evaluation__every": 3,
        "aggregation__rule": "class_prior_log",
        "data__path": "/secret/place",
        "output__name": "thirty",
    }
    config = tiny_config(**small)
    shape = {"classes": 10, "image_shape": (1, 28, 28)}
    fakes = [
        FakeSilo(
            f"silo-{i}",
            budget=400 if i == 3 else 5000 + 1000 * i,
            class_report=ClassReport(tuple(float(1 + (i * k) % 7) for k in range(10))),
            **shape,
        )
        for i in range(5)
    ]
    facts = {f.description.silo: SiloFacts(640, lambda images: brightness_probabilities(images, 10)) for f in fakes}
    held_out = evaluation(100, classes=10, side=28)
    distill(config, LocalTransport(fakes), folder, evaluation=held_out, silo_facts=facts)
