# SPDX-License-Identifier: Apache-2.0
"""A teacher is tried on invented images before it is trusted with a question that costs its silo something.

    1 image > 2 images > a full forward pass > where that is quick, one image more than a pass

What a trial asks is made of nothing private, what the teacher answers is shown to its owner alone, and no ledger is
touched. A teacher that fails its trial would fail on real images as well, after they were charged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import TeacherError, explain
from fedcpsc.teachers.invented import invented_images
from fedcpsc.teachers.outputs import MISREAD, meaning_of
from fedcpsc.teachers.peak_memory import PeakMemory, free_memory, resident_memory
from fedcpsc.teachers.protocol import Floats, ShardTeacher, Teacher, WithOutputs, checked

__all__ = ["TrialResult", "answers_to_invented", "batch_that_fits", "try_teacher"]

_PROBE = 8  # images of the first pass that is measured
_QUICK_S = 5.0
_LONGEST_S = 30.0  # of a full pass; where it would take longer, fewer images are tried
_MEMORY_SHARE = 0.8  # of what is free, which a full pass may take
_SAME = 1e-4  # answers closer than this are the same
_APART = 0.02  # answers to one image further apart than this are different ones
_SURE = 0.8  # probability of a class, at which a model is sure of it
_FASTER = 1.1  # a larger batch must be faster by this factor to be worth its memory
_PASS_BYTES = 512 * 2**20  # that a forward pass may take beyond the model, where the batch is chosen here
_LARGEST_BATCH = 500
_ENOUGH_S = 5.0  # of one pass, after which no larger one is tried


@dataclass(frozen=True)
class TrialResult:
    """What a trial found.

    Attributes:
        batch_size: number of images in the largest forward pass that was tried, >= 1.
        seconds: seconds that 1,000 images take at that batch size.
        peak_bytes: most memory that a pass took beyond what the process held before, in bytes, >= 0.
        image_bytes: size of an image, in bytes.
        warnings: sentences: what looks wrong, though it is an answer.
    """

    batch_size: int
    seconds: float
    peak_bytes: int
    image_bytes: int
    warnings: tuple[str, ...] = ()

    @property
    def peak_bytes_of_1000(self) -> int:
        """Most memory for a query of 1,000 images: a forward pass, and the images themselves."""
        return self.peak_bytes + 1000 * self.image_bytes

    def __str__(self) -> str:
        mb = max(1, round(self.peak_bytes_of_1000 / 10**6))
        passes = f"{self.batch_size} a forward pass"
        return f"1,000 images take {_seconds(self.seconds)} and {mb} MB of memory beyond the model ({passes})"


def try_teacher(
    teacher: Teacher, image_shape: tuple[int, int, int], batch_size: int, *, from_elsewhere: bool = True
) -> TrialResult:
    """Tries a teacher on 1, 2 and a full batch of invented images.

    Args:
        teacher: teacher as its silo opens it.
        image_shape: shape (C, H, W) of the images that it takes.
        batch_size: number of images in a full forward pass, >= 1.
        from_elsewhere: whether the model was not made by this project, so that its last layer may be a softmax.

    Raises:
        TeacherError: where it fails on any of them, gives anything but probabilities, or where a full batch needs more
            memory than is free. The message names the number of images.
    """
    answers = [answers_to_invented(teacher, image_shape, count) for count in (1, 2)]
    full = _climb(_Trier(teacher, image_shape), batch_size)
    answers.append(full.answers)
    if full.seconds < _QUICK_S:
        answers.append(answers_to_invented(teacher, image_shape, full.count + 1))
    size = int(np.prod(image_shape))
    twice = from_elsewhere and _softmax_twice(teacher, image_shape, answers[-1])
    warnings = _warnings(answers, _differs_by_itself(teacher, image_shape, answers[0]), twice)
    if from_elsewhere and isinstance(teacher, WithOutputs):
        meaning = meaning_of(teacher.outputs(invented_images(_PROBE, image_shape)))
        warnings += (
            [f"its outputs {fault}: {remedy}" for fault, remedy in [MISREAD[meaning]]] if meaning in MISREAD else []
        )
    if full.count < batch_size:
        each = full.seconds / full.count
        warnings.append(
            f"a forward pass of {batch_size} images would take about {_seconds(each * batch_size)}, so that only"
            f" {full.count} were tried: set service.batch_size: {full.count} in policy.yaml"
        )
    return TrialResult(full.count, 1000 * full.seconds / full.count, full.extra, size, tuple(warnings))


def batch_that_fits(teacher: Teacher, image_shape: tuple[int, int, int], largest: int = _LARGEST_BATCH) -> int:
    """The number of images a forward pass at which a teacher is about as fast as it gets, within bounded memory.

    The batch is doubled until it would take half a gigabyte or half of what is free, or five seconds; of those beyond 8
    images, one that is hardly faster is not taken.

    Args:
        teacher: teacher, opened with a batch size of at least `largest`.
        image_shape: shape (C, H, W) of the images that it takes.
        largest: largest number to try, >= 1.

    Raises:
        TeacherError: where it fails, as `try_teacher`.
    """
    answers_to_invented(teacher, image_shape, 1)  # what is made ready at the first call is not counted
    trier = _Trier(teacher, image_shape)
    best = found = trier.measure(1)
    while 2 * found.count <= largest:
        foretold = 2 * found.count * trier.bytes_each(found)
        if foretold > min(_PASS_BYTES, trier.free // 2) or 2 * found.seconds > _ENOUGH_S:
            break
        found = trier.measure(2 * found.count)
        if found.count <= _PROBE or found.seconds / found.count < best.seconds / best.count / _FASTER:
            best = found
    return best.count


@dataclass(frozen=True)
class _Pass:
    count: int
    seconds: float
    extra: int
    answers: Floats


class _Trier:
    """Measures forward passes, all from the memory that the process held before the first."""

    def __init__(self, teacher: Teacher, image_shape: tuple[int, int, int]) -> None:
        self._teacher, self._shape = teacher, image_shape
        self._before = resident_memory()  # what a pass has taken, its allocator often keeps for the next
        self.free = free_memory()

    def measure(self, count: int) -> _Pass:
        """Time and memory of one pass of `count` images."""
        images = invented_images(count, self._shape)  # which takes longer than a pass of a small network
        with PeakMemory(self._before) as memory:
            begun = time.perf_counter()
            answers = _answers(self._teacher, images)
            seconds = time.perf_counter() - begun
        return _Pass(count, seconds, memory.extra, answers)

    def bytes_each(self, found: _Pass) -> float:
        """Bytes that each image of a larger pass may take, as that pass shows it: at least its pixels as floats."""
        return max(found.extra / found.count, 4 * float(np.prod(self._shape)))


def _climb(trier: _Trier, batch_size: int) -> _Pass:
    """A pass of a full batch, reached by smaller ones, each of which foretells the next.

    It stops at the largest that does not take too long.

    Raises:
        TeacherError: where the next would take more memory than is free.
    """
    found = trier.measure(min(_PROBE, batch_size))
    while found.count < batch_size:
        wanted = min(batch_size, 4 * found.count)
        if wanted / found.count * found.seconds > _LONGEST_S:
            return found
        each, free = trier.bytes_each(found), _MEMORY_SHARE * trier.free
        if each * wanted > free:
            constraint = (
                f"a forward pass of so many images needs about {each * batch_size / 10**9:.1f} GB of memory, and"
                f" {free / 10**9:.1f} GB may be used here"
            )
            remedy = f"set it to {max(1, int(free / each))} or less in policy.yaml"
            raise TeacherError(explain("service.batch_size", batch_size, constraint, remedy))
        found = trier.measure(wanted)
    return found


def answers_to_invented(teacher: Teacher, image_shape: tuple[int, int, int], count: int) -> Floats:
    """A teacher's answers to the first `count` invented images, float32 [count, K].

    Args:
        teacher: teacher as its silo opens it.
        image_shape: shape (C, H, W) of the images that it takes.
        count: number of images, >= 1.

    Raises:
        TeacherError: where it fails, or gives anything else.
    """
    return _answers(teacher, invented_images(count, image_shape))


def _answers(teacher: Teacher, images: npt.NDArray[np.uint8]) -> Floats:
    """A teacher's checked answers to invented images."""
    count, shape = len(images), tuple(images.shape[1:])
    try:
        if isinstance(teacher, ShardTeacher):
            teacher.predict_shards(images)
        return checked(np.asarray(teacher.predict(images)), count, teacher.classes)
    except Exception as error:  # the teacher's own code: whatever it raises, on images that are nobody's
        reason = str(error) if isinstance(error, TeacherError) else f"{type(error).__name__}: {error}"
        shown = " ".join(reason.split())[:600]
        raise TeacherError(
            explain(
                "teacher", f"{count} invented image{'s' if count > 1 else ''} of {shape}", f"failed: {shown}",
                _remedy(error, count),
            )
        ) from error  # fmt: skip


def _remedy(error: Exception, count: int) -> str:
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return "set a smaller service.batch_size in policy.yaml"
    if count > 1:
        return "export it with a free number of images; fewer went well"
    return "check model, image_shape and classes; nothing was charged"


def _differs_by_itself(teacher: Teacher, image_shape: tuple[int, int, int], before: Floats) -> bool:
    return float(np.abs(answers_to_invented(teacher, image_shape, 1) - before).max()) > _APART


def _warnings(answers: Sequence[Floats], random: bool, twice: bool) -> list[str]:
    """What looks wrong in the answers to batches that all begin with the same image."""
    largest = answers[-1]
    found = []
    if random:
        found.append(
            "asked twice about one image, it answers differently: dropout is still active; export it after model.eval()"
        )
    elif max(float(np.abs(part[0] - largest[0]).max()) for part in answers) > _APART:
        found.append(
            "its answer to an image depends on the images beside it: a batch normalisation is still learning; export"
            " it after model.eval()"
        )
    if len(largest) > 2 and float(np.ptp(largest, axis=0).max()) < _SAME:
        found.append(
            f"it gives {len(largest)} unlike images one and the same answer: check that the weights are the trained"
            " ones, and the normalisation"
        )
    elif twice:
        classes = largest.shape[1]
        bound = np.e / (np.e + classes - 1)
        found.append(
            f"its answers are as if a softmax had been applied to probabilities: with {classes} classes none can then"
            f" exceed {bound:.3f}; where the model ends in a softmax of its own, say so by probabilities: true in"
            " manifest.json (fedcpsc adopt --probabilities)"
        )
    return found


def _softmax_twice(teacher: Teacher, image_shape: tuple[int, int, int], answers: Floats) -> bool:
    """Whether a softmax was applied to what are probabilities already."""
    if not isinstance(teacher, WithOutputs):
        return _softmax_of_probabilities(answers)
    images = invented_images(_PROBE, image_shape)
    outputs = teacher.outputs(images)
    return meaning_of(outputs) == "probabilities" and not np.allclose(outputs, teacher.predict(images), atol=_SAME)


def _softmax_of_probabilities(answers: npt.NDArray[np.float32]) -> bool:
    """Whether every row is the softmax of a distribution, and at least one of those is sure of a class.

    A softmax's argument is log p + c; the c for which it sums to 1 makes it a distribution only where it is >= 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(answers.astype(np.float64))
        inner = logs + (1 - logs.sum(1, keepdims=True)) / logs.shape[1]
    return bool(np.isfinite(inner).all() and inner.min() > -1e-3 and inner.max() > _SURE)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
