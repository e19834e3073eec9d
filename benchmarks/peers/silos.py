# SPDX-License-Identifier: Apache-2.0
"""Silos as peers reach them, and the one place where calls are counted.

A call is an image that passes through a silo's teacher, whoever asks and why: repeats and the probes of estimated
gradients are calls too. Of methods that hold the silos' weights it is a forward pass of an image, with or without a
backward pass. Every image is asked of every silo, so that one number says what each of them was asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcpsc.aggregation.rule import RULES, Floats
from fedcpsc.data.images import to_uint8
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.errors import FedcpscError, explain
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.registry import build_classifier
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, load_manifest, read_weights
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.state_dict import tensors_of

__all__ = ["AskedBefore", "CountedSilos", "PeerError", "Silo", "open_silo"]

_POOLED_BY = "class_prior_log"
_AS_PIXELS = ((0.5,), (0.5,))  # mean and std of a network that takes [-1, 1]


class PeerError(FedcpscError):
    """A peer needs what it was not given."""


@dataclass(frozen=True, eq=False)
class Silo:
    """One silo.

    Attributes:
        name: name of the silo.
        predict: its teacher, pixels float32 [N, C, H, W] in [-1, 1] -> probabilities [N, K], without a gradient.
        network: its teacher's network, in evaluation mode and frozen; None where the silo gives answers alone.
        class_counts: number of its images in each class, [K].
    """

    name: str
    predict: Callable[[Tensor], Tensor]
    network: Classifier | None
    class_counts: tuple[float, ...]

    @classmethod
    def of_network(cls, name: str, network: Classifier, class_counts: Sequence[float]) -> Silo:
        """A silo that gives its weights away."""
        network.eval().requires_grad_(False)
        return cls(name, lambda pixels: torch.softmax(network(pixels), 1), network, tuple(class_counts))


def open_silo(folder: Path, *, answers_alone: bool = False) -> Silo:
    """The silo in a folder, past its gatekeeper and its ledger: a measuring instrument.

    A network of `models.registry` is taken with its weights, and sees pixels as they are; a teacher in another format
    gives answers alone, to images rounded to 8 bits, as each silo of fedcpsc does.

    Args:
        folder: folder of the silo.
        answers_alone: whether weights are left where they are.
    """
    manifest = load_manifest(folder)
    counts = tuple(float(count) for count in manifest.private_class_counts or (1,) * manifest.classes)
    normalised = manifest.normalisation
    if manifest.kind == "torch" and (normalised.mean, normalised.std) == _AS_PIXELS and not answers_alone:
        return Silo.of_network(manifest.silo, _network(folder, manifest), counts)
    teacher = open_teacher(folder, manifest)

    def predict(pixels: Tensor) -> Tensor:
        return torch.from_numpy(teacher.predict(to_uint8(pixels).numpy()))

    return Silo(manifest.silo, predict, None, counts)


@dataclass(frozen=True, eq=False)
class AskedBefore:
    """What was asked last, oldest first.

    Attributes:
        images: uint8 [n, C, H, W].
        answers: probabilities, float32 [S, n, K].
    """

    images: npt.NDArray[np.uint8]
    answers: Floats


class CountedSilos:
    """All silos of a federation, asked together.

    Args:
        silos: silos, at least one.
        budget: most images that each of them may be asked; None: any number.
        keep: number of the latest images that are kept with their answers.

    Attributes:
        calls: number of images that each silo was asked so far.
    """

    def __init__(self, silos: Sequence[Silo], budget: int | None = None, keep: int = 30_000) -> None:
        self._silos = tuple(silos)
        self._budget = budget
        self._keep = keep
        self._kept: deque[tuple[npt.NDArray[np.uint8], Floats]] = deque()
        self._rows = 0
        self.calls = 0
        self.class_counts = np.array([silo.class_counts for silo in silos], np.float32)

    def __len__(self) -> int:
        return len(self._silos)

    @property
    def names(self) -> list[str]:
        """Names of the silos."""
        return [silo.name for silo in self._silos]

    @property
    def left(self) -> int:
        """Number of images that each silo may still be asked."""
        if self._budget is None:
            raise PeerError(explain("budget", None, "has no end, so that nothing is left of it", "give --calls"))
        return self._budget - self.calls

    def networks(self, peer: str) -> list[Classifier]:
        """The teachers' networks.

        Args:
            peer: name of the method that needs them.

        Raises:
            PeerError: a silo gives answers alone.
        """
        closed = [silo.name for silo in self._silos if silo.network is None]
        if closed:
            shown = f"needs the weights of every silo, and {', '.join(closed)} give answers alone"
            remedy = "compare with a method that asks (FedDF, IDEAL, DFME), or with silos of torch teachers"
            raise PeerError(explain("peer", peer, shown, remedy))
        return [silo.network for silo in self._silos if silo.network is not None]

    def logits(self, pixels: Tensor, peer: str) -> Tensor:
        """Logits of every teacher, [S, N, K], with the gradient that leads to the pixels.

        Args:
            pixels: float32 [N, C, H, W] in [-1, 1].
            peer: name of the method that asks.

        Raises:
            PeerError: a silo gives answers alone, or the budget is spent.
        """
        networks = self.networks(peer)
        self._charge(len(pixels))
        logits = torch.stack([network(pixels) for network in networks])
        self._note(pixels, torch.softmax(logits.detach(), 2))
        return logits

    def answers(self, pixels: Tensor) -> Tensor:
        """Probabilities of every teacher, [S, N, K].

        Args:
            pixels: float32 [N, C, H, W] in [-1, 1].

        Raises:
            PeerError: the budget is spent.
        """
        self._charge(len(pixels))
        with torch.no_grad():
            answers = torch.stack([silo.predict(pixels.detach()) for silo in self._silos])
        self._note(pixels, answers)
        return answers

    def one_teacher(self, pixels: Tensor) -> Tensor:
        """All silos as one teacher, for methods that know but one: probabilities [N, K].

        Pooled by `class_prior_log` with the silos' true class counts, of answers of full precision.

        Args:
            pixels: float32 [N, C, H, W] in [-1, 1].

        Raises:
            PeerError: the budget is spent.
        """
        answers = self.answers(pixels)
        return answers[0] if len(self) == 1 else self.pooled(answers)

    def pooled(self, answers: Tensor) -> Tensor:
        """`one_teacher` of answers [S, N, K] that were given: [N, K]; asks nobody."""
        given = np.ones(tuple(answers.shape[:2]), bool)
        found = aggregate(answers.numpy(), given, RULES.get(_POOLED_BY), counts=self.class_counts)
        return torch.from_numpy(found)

    def asked_before(self) -> AskedBefore:
        """The latest images that were asked, with their answers, oldest first."""
        images = np.concatenate([images for images, _ in self._kept])[-self._keep :]
        return AskedBefore(images, np.concatenate([answers for _, answers in self._kept], 1)[:, -self._keep :])

    def measured(self, pixels: Tensor) -> Tensor:
        """`answers` to held-out images, which are measured and are no calls."""
        with torch.no_grad():
            return torch.stack([silo.predict(pixels) for silo in self._silos])

    def _charge(self, images: int) -> None:
        if self._budget is not None and self.calls + images > self._budget:
            constraint = f"{images} images more would pass {self._budget}"
            raise PeerError(explain("calls", self.calls, constraint, "ask in batches of at most `left` images"))
        self.calls += images

    def _note(self, pixels: Tensor, answers: Tensor) -> None:
        self._kept.append((to_uint8(pixels.detach()).numpy(), answers.numpy()))
        self._rows += len(pixels)
        while self._rows - len(self._kept[0][0]) >= self._keep:
            self._rows -= len(self._kept.popleft()[0])


def _network(folder: Path, manifest: Manifest) -> Classifier:
    network: Any = build_classifier(manifest.architecture, manifest.outputs, manifest.image_shape, manifest.width)
    network.load_state_dict(tensors_of(read_weights(folder, manifest), WEIGHTS_FILE))
    return network  # type: ignore[no-any-return]
