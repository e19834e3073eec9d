# SPDX-License-Identifier: Apache-2.0
"""Small torch modules, and federations and runs of the Python API over them that take a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import fedcpsc

SHAPE, CLASSES = (1, 8, 8), ["dark", "grey", "bright"]
QUICK = {
    "synthesis": {"steps": 2, "batch_size": 16, "width": 4, "moments": [0.0, 0.5]},
    "student": {"width": 4, "steps_per_round": 3, "final_steps": 20, "batch_size": 16},
    "runtime": {"device": "cpu", "threads": 1},
}


class Brightness(nn.Module):
    """Tells dark, grey and bright images apart: pixels in [0, 1] -> logits [N, 3]."""

    def __init__(self, sharp: float = 20.0) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor([0.2, 0.5, 0.8]))
        self.sharp = nn.Parameter(torch.tensor(float(sharp)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.sharp * (x.mean((1, 2, 3))[:, None] - self.level).abs()


def modules(count: int = 3) -> list[nn.Module]:
    """Modules that are all of one opinion, and not quite of one confidence."""
    return [Brightness(15.0 + 5 * number) for number in range(count)]


def held_out(count: int = 60) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images uint8 [N, 1, 8, 8] and the labels that a `Brightness` gives them."""
    rng = np.random.default_rng(5)
    images = np.clip(rng.integers(0, 256, (count, 1, 1, 1)) + rng.integers(-20, 20, (count, *SHAPE)), 0, 255)
    images = images.astype(np.uint8)
    with torch.no_grad():
        labels = Brightness()(torch.from_numpy(images) / 255).argmax(1).numpy()
    return images, labels


def federation(count: int = 3, **said: Any) -> fedcpsc.Federation:
    """`said` replaces what is usually said of the modules."""
    known: dict[str, Any] = {"classes": CLASSES, "image_shape": SHAPE, "normalisation": "none"}
    return fedcpsc.simulate(said.pop("models", None) or modules(count), **(known | said))


def run(silos: fedcpsc.Federation, **asked: Any) -> fedcpsc.Run:
    """A run over them of 60 answers in 3 rounds; `asked` replaces arguments, `config` is added to `QUICK`."""
    config = {key: value | asked.get("config", {}).get(key, {}) for key, value in QUICK.items()}
    dotted = {key: value for key, value in asked.pop("config", {}).items() if key not in QUICK}
    return fedcpsc.distill(silos, **({"answers": 60, "rounds": 3, "config": config | dotted} | asked))


def weights(of):
    """A run's student's weights, copied."""
    return {name: tensor.clone() for name, tensor in of.student.state_dict().items()}


def equal(one, other):
    """Whether two students' weights are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
