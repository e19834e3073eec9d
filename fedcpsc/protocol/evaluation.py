# SPDX-License-Identifier: Apache-2.0
"""Federated evaluation: a student is sent to a silo, and numbers of images come back.

    EvaluationQuery -> EvaluationAnswer, or a Refusal

The student crosses the wire as the name of a network of `models.registry` with its sizes, and its weights as the bytes
of a safetensors file: tensors, no code, nothing that is unpickled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ProtocolError, explain
from fedcpsc.protocol.common import PROTOCOL_VERSION, DpClaim, check_classes, check_query_id

__all__ = [
    "LARGEST_COUNT",
    "LARGEST_NOISE",
    "LARGEST_WIDTH",
    "EvaluationAnswer",
    "EvaluationOffer",
    "EvaluationQuery",
    "PerClassCounts",
]

LARGEST_WIDTH = 4096
"""Channels of a network's first stage."""
LARGEST_COUNT = 2**40
"""Beyond it no number of images, with or without noise, is believed."""
LARGEST_NOISE = 1e9
"""Beyond it no standard deviation of noise is believed."""


@dataclass(frozen=True)
class EvaluationOffer:
    """That a silo judges students on held-out images of its own, and how: part of its `Description`.

    Attributes:
        total: number of evaluations that its policy allows over all time, >= 1.
        left: number of them that are left, >= 0.
        sigma: standard deviation of the noise on each number of images; 0 where the numbers are exact.
        held_out: number of its held-out images, >= 1; None where that is not public.
        max_bytes: largest student that it takes, in bytes of the safetensors file, >= 1.
        per_class: whether it also tells its numbers class by class.
    """

    total: int
    left: int
    sigma: float
    held_out: int | None
    max_bytes: int
    per_class: bool = False

    def __post_init__(self) -> None:
        good = self.total >= 1 and self.left >= 0 and 0 <= self.sigma <= LARGEST_NOISE
        good = good and self.max_bytes >= 1 and (self.held_out is None or 1 <= self.held_out <= LARGEST_COUNT)
        if not good:
            raise ProtocolError(explain("evaluation", vars(self), "is out of bounds", "check the silo's policy"))


@dataclass(frozen=True, eq=False)
class EvaluationQuery:
    """A student to be judged.

    Attributes:
        query_id: 32 lower-case hex digits, fresh for each evaluation; the same id with the same payload is a replay.
        architecture: name of the network in `models.registry`.
        width: width of the network, in [1, 4096].
        classes: number of its outputs, >= 2.
        image_shape: (C, H, W) of its images.
        outputs: for each of the silo's own classes, in the order of its description, the output that stands for it:
            different numbers in [0, classes).
        weights: bytes of a safetensors file with its state dict, uint8 [B].
        class_names: names of the silo's classes as its description told them; None where it named none.
        run: name of the run, for the silo's log alone.
        principal: who asks; ids are looked up per principal.
    """

    query_id: str
    architecture: str
    width: int
    classes: int
    image_shape: tuple[int, int, int]
    outputs: tuple[int, ...]
    weights: npt.NDArray[np.uint8]
    class_names: tuple[str, ...] | None = None
    run: str = ""
    principal: str = ""
    version: str = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        check_query_id(self.query_id)
        check_classes(self.classes)
        good = 1 <= self.width <= LARGEST_WIDTH and min(self.image_shape) >= 1 and len(self.outputs) >= 1
        good = good and len(set(self.outputs)) == len(self.outputs)
        good = good and all(0 <= output < self.classes for output in self.outputs)
        if not good:
            got = f"width {self.width}, {self.image_shape}, {len(self.outputs)} outputs of {self.classes}"
            constraint = f"must be in [1, {LARGEST_WIDTH}], >= 1, different outputs of the network"
            raise ProtocolError(explain("student", got, constraint, "check the sender"))
        if self.weights.dtype != np.uint8 or self.weights.ndim != 1 or len(self.weights) == 0:
            got = f"{self.weights.dtype}{list(self.weights.shape)}"
            raise ProtocolError(explain("weights", got, "must be non-empty uint8 [B]", "send a safetensors file"))

    @property
    def count(self) -> int:
        """0: no image crosses the wire."""
        return 0

    @property
    def payload_hash(self) -> str:
        """SHA-256 over all that decides the answer: equal exactly when the same student is to be judged."""
        names = None if self.class_names is None else list(self.class_names)
        said = ("evaluation", self.architecture, self.width, self.classes, self.image_shape, self.outputs, names)
        digest = hashlib.sha256(f"{said!r}|".encode())
        digest.update(np.ascontiguousarray(self.weights).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class PerClassCounts:
    """Numbers of held-out images for each of the silo's own k classes, each with noise where the answer has some.

    Attributes:
        images: number of images of the class.
        right: number of those that the student classifies rightly.
        predicted: number of images, of whatever class, that the student gives this class. What it gives classes that
            are not the silo's, and images whose outputs are not finite, are in none.
    """

    images: tuple[int, ...]
    right: tuple[int, ...]
    predicted: tuple[int, ...]

    def __post_init__(self) -> None:
        good = len(self.images) == len(self.right) == len(self.predicted) >= 1
        if not good or any(abs(count) > LARGEST_COUNT for count in (*self.images, *self.right, *self.predicted)):
            got = f"{len(self.images)}, {len(self.right)} and {len(self.predicted)} numbers"
            constraint = f"must be as many each, whole numbers of at most {LARGEST_COUNT}"
            raise ProtocolError(explain("per_class", got, constraint, "check the silo"))


@dataclass(frozen=True)
class EvaluationAnswer:
    """How many held-out images of a silo a student classified rightly.

    Attributes:
        query_id: id of the query answered.
        right: number of images classified rightly, with noise where `sigma` > 0: then it may be below 0, or larger than
            the number of images.
        sigma: standard deviation of the noise on each number, before its rounding to a whole one; 0 where they are
            exact.
        held_out: number of held-out images; None where that is not public.
        evaluations_left: number of evaluations that are left in the silo's budget after this one.
        claim: claim of privacy; its epsilon covers these numbers together with all else that the silo releases.
        per_class: numbers class by class; None where the silo does not tell them.
    """

    query_id: str
    right: int
    sigma: float
    held_out: int | None
    evaluations_left: int
    claim: DpClaim = field(default_factory=DpClaim)
    per_class: PerClassCounts | None = None
    version: str = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        check_query_id(self.query_id)
        good = abs(self.right) <= LARGEST_COUNT and 0 <= self.sigma <= LARGEST_NOISE
        good = good and (self.held_out is None or 1 <= self.held_out <= LARGEST_COUNT)
        if not good:
            got = f"{self.right} of {self.held_out}, sigma {self.sigma}"
            raise ProtocolError(explain("evaluation", got, "is out of bounds", "check the silo"))
