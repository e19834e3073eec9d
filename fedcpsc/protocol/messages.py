# SPDX-License-Identifier: Apache-2.0
"""The messages of the query protocol: frozen, versioned, numpy only (no torch, no flwr).

Three exchanges exist: `DescribeRequest -> Description`, `Query -> Answer`, and, since 1.4, `EvaluationQuery ->
EvaluationAnswer` (`evaluation.py`). Each may be met with a `Refusal`, which is a code. `codec.py` turns them into bytes
and back, `records.py` into Flower's records.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from fedcpsc.class_names import fault_of_class_names
from fedcpsc.errors import ProtocolError, RefusalCode, VersionError, explain
from fedcpsc.protocol.answer_form import AnswerForm
from fedcpsc.protocol.common import MAX_CLASSES, PROTOCOL_VERSION, TEXT_LIMIT, DpClaim, check_classes, check_query_id
from fedcpsc.protocol.evaluation import EvaluationAnswer, EvaluationOffer, EvaluationQuery, PerClassCounts
from fedcpsc.protocol.recipe import Recipe

__all__ = [
    "MAX_CLASSES",
    "PROTOCOL_VERSION",
    "TEXT_LIMIT",
    "Answer",
    "AnswerForm",
    "AnyQuery",
    "Array",
    "ClassReport",
    "DescribeRequest",
    "Description",
    "DpClaim",
    "EvaluationAnswer",
    "EvaluationOffer",
    "EvaluationQuery",
    "EvaluationTarget",
    "Message",
    "PerClassCounts",
    "Query",
    "QueryTarget",
    "RecipeQuery",
    "Refusal",
    "check_version",
    "decode_answers",
    "judge_of",
]

Array: TypeAlias = npt.NDArray[Any]
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ClassReport:
    """An opt-in release of how many private images each class has.

    Attributes:
        counts: one number per class; noised counts may be fractional, never negative.
        dp: the claim for this release alone.
    """

    counts: tuple[float, ...]
    dp: DpClaim = field(default_factory=DpClaim)


@dataclass(frozen=True)
class DescribeRequest:
    """The server's hello; charged nothing."""

    version: str = PROTOCOL_VERSION


@dataclass(frozen=True)
class Description:
    """What a silo says of itself: facts of its policy, its teacher's shape and its budget.

    Of the private data it shows only what the owner lets it: the class counts, where the owner shares them, with their
    own claim. All else is equal for a silo with one record more, as long as its owner declared no size public and the
    list of its classes was given with the data, not read off its labels.

    Attributes:
        silo: the silo's name.
        classes: number of columns of its answers, >= 2: its classes, and one more with `none_class`.
        image_shape: (C, H, W) the teacher takes.
        forms: the answer forms its policy offers.
        images_per_query: the most images one query may carry.
        answers_total: budget over all time.
        answers_left: what is left of it now.
        claim: the privacy claim for answers.
        class_report: class counts, only where the policy shares them.
        noise_sigma: standard deviation of the mechanism's noise on each probability, 0 where there is none.
        recipes: whether it makes a query's images from a recipe (since 1.1; older silos do not say, and do not).
        class_names: names of its classes in the order of its answers' columns, without the last column where that says
            "none of these" (since 1.2); None where it names none.
        none_class: whether the last column of its answers says "none of these classes" (since 1.2).
        share_answers: whether its owner lets the server hand its answers on to others (since 1.3); a silo that does not
            say so, as older ones, has not agreed.
        teacher: version of its teacher: text that is another one where another teacher answers, and tells nothing
            else of it (since 1.3); None where it does not say.
        evaluation: that it judges students on held-out images of its own, and how (since 1.4); None where it does not.
    """

    silo: str
    classes: int
    image_shape: tuple[int, int, int]
    forms: tuple[AnswerForm, ...]
    images_per_query: int
    answers_total: int
    answers_left: int
    claim: DpClaim = field(default_factory=DpClaim)
    class_report: ClassReport | None = None
    noise_sigma: float = 0.0
    recipes: bool = False
    class_names: tuple[str, ...] | None = None
    none_class: bool = False
    share_answers: bool = False
    teacher: str | None = None
    evaluation: EvaluationOffer | None = None
    version: str = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        check_classes(self.classes)
        named = self.classes - self.none_class
        if self.class_names is not None and (fault := fault_of_class_names(self.class_names, named)):
            raise ProtocolError(fault)
        sizes = (*self.image_shape, self.images_per_query, len(self.forms))
        if min(sizes) < 1 or not (math.isfinite(self.noise_sigma) and self.noise_sigma >= 0):
            got = f"{self.image_shape}, {self.images_per_query}, {self.forms}, {self.noise_sigma}"
            raise ProtocolError(
                explain("description", got, "sizes must be >= 1, noise >= 0", "check the silo's policy")
            )


@dataclass(frozen=True, eq=False)
class Query:
    """Images to be answered.

    Attributes:
        query_id: 32 lower-case hex digits, fresh for each batch; the same id with the same payload is a replay.
        form: the wished answer form.
        images: uint8 [N, C, H, W].
        run: the run's name, for the silo's log only.
        principal: who asks; query ids are looked up per principal.
    """

    query_id: str
    form: AnswerForm
    images: npt.NDArray[np.uint8]
    run: str = ""
    principal: str = ""
    version: str = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        check_query_id(self.query_id)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or 0 in self.images.shape:
            got = f"{self.images.dtype}{list(self.images.shape)}"
            raise ProtocolError(explain("images", got, "must be non-empty uint8 [N, C, H, W]", "quantise to 8 bits"))

    @property
    def count(self) -> int:
        """N, the number of images asked about."""
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.images.shape[1:]

    @property
    def payload_hash(self) -> str:
        """SHA-256 over form, shape and pixels: equal exactly when the same question is asked."""
        digest = hashlib.sha256(f"{self.form.value}|{self.images.shape}|".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class RecipeQuery:
    """A query whose images the silo makes itself; in everything else it is the `Query` of those images.

    Attributes:
        query_id, form, run, principal: fields of `Query`.
        payload: `payload_hash` of that query. A silo that makes other images refuses (`recipe`), uncharged; and an id
            means the same question whichever way it is asked.
        recipe: what the images are made from.
    """

    query_id: str
    form: AnswerForm
    payload: str
    recipe: Recipe
    run: str = ""
    principal: str = ""
    version: str = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        check_query_id(self.query_id)
        if not _SHA256.fullmatch(self.payload):
            raise ProtocolError(explain("payload", self.payload, "must be a SHA-256", "use Query.payload_hash"))

    @property
    def count(self) -> int:
        """N, the number of images asked about."""
        return self.recipe.count

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.recipe.image_shape


AnyQuery: TypeAlias = Query | RecipeQuery


@dataclass(frozen=True, eq=False)
class Answer:
    """What a teacher said, in the form asked for.

    Attributes:
        query_id: id of the query answered.
        form: says how `values` (and `indices`) are to be read.
        classes: number of columns, as in `Description`.
        values: `probabilities`: uint8 or float32 [N, K]; `top_k`: uint8 or float32 [N, k]; `label`: uint16 [N].
            uint8 is a probability times 255, rounded; float32 may be noisy (outside [0, 1]).
        indices: uint16 [N, k], class indices of `top_k`; None otherwise.
        answers_left: images left in the silo's budget after this answer.
        claim: the privacy claim.
    """

    query_id: str
    form: AnswerForm
    classes: int
    values: Array
    answers_left: int
    indices: npt.NDArray[np.uint16] | None = None
    claim: DpClaim = field(default_factory=DpClaim)
    version: str = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        wanted = "uint16 [N]" if self.form is AnswerForm.LABEL else "uint8 or float32 [N, k]"
        if self.form is AnswerForm.LABEL:
            good = self.values.dtype == np.uint16 and self.values.ndim == 1
        else:
            good = self.values.dtype in (np.dtype(np.uint8), np.dtype(np.float32)) and self.values.ndim == 2
        if self.form is AnswerForm.PROBABILITIES:
            good = good and self.values.shape[1] == self.classes
        if self.form is AnswerForm.TOP_K:
            good = good and self.indices is not None and self.indices.shape == self.values.shape
            good = good and self.indices is not None and self.indices.dtype == np.uint16
        elif self.indices is not None:
            good = False
        if not good or len(self.values) == 0:
            got = f"{self.values.dtype}{list(self.values.shape)}"
            raise ProtocolError(explain("values", got, f"{self.form.value} needs {wanted}", "check the silo's version"))
        check_classes(self.classes)
        shown = self.values if self.form is AnswerForm.LABEL else self.indices
        if shown is not None and int(shown.max()) >= self.classes:
            raise ProtocolError(explain("class", int(shown.max()), f"must be < {self.classes}", "check the silo"))
        if not np.isfinite(self.values).all():
            raise ProtocolError(explain("values", "NaN or infinity", "must be finite", "check the silo's teacher"))

    @property
    def count(self) -> int:
        """N, the number of images answered."""
        return len(self.values)


@dataclass(frozen=True)
class Refusal:
    """No answer. `query_id` is empty where the message could not be read."""

    code: RefusalCode
    query_id: str = ""
    version: str = PROTOCOL_VERSION


Message: TypeAlias = (
    DescribeRequest | Description | Query | RecipeQuery | Answer | EvaluationQuery | EvaluationAnswer | Refusal
)


class QueryTarget(Protocol):
    """Whatever answers: a gatekeeper in-process, or the client of one over its socket. Never raises for bad input."""

    def describe(self, request: DescribeRequest) -> Description | Refusal:
        """The silo's public facts."""
        ...

    def answer(self, query: AnyQuery) -> Answer | Refusal:
        """Answers the whole query or refuses the whole query."""
        ...


class EvaluationTarget(Protocol):
    """Whatever judges students: a `QueryTarget` that can also do this. Never raises for bad input."""

    def evaluate(self, query: EvaluationQuery) -> EvaluationAnswer | Refusal:
        """How many held-out images a student classifies rightly, or a refusal."""
        ...


def judge_of(target: object) -> EvaluationTarget | None:
    """A target as what judges students; None where it does not, as those that know queries alone."""
    return cast("EvaluationTarget", target) if callable(getattr(target, "evaluate", None)) else None


def check_version(version: str) -> None:
    """Refuses another major version.

    Raises:
        VersionError: naming both versions.
    """
    if version.partition(".")[0] != PROTOCOL_VERSION.partition(".")[0]:
        constraint = f"this side speaks {PROTOCOL_VERSION}"
        raise VersionError(explain("version", version, constraint, "install the same major version on both"), version)


def decode_answers(answer: Answer) -> npt.NDArray[np.float32]:
    """Dense class distributions, whatever the form: float32 [N, K], rows summing to 1.

    `top_k` spreads the mass it did not see evenly over the other classes; `label` is one-hot. Noisy values are
    clipped to [0, 1] and renormalised (post-processing, free of any privacy cost); a row without mass is uniform.
    """
    n, k = answer.count, answer.classes
    if answer.form is AnswerForm.LABEL:
        dense = np.zeros((n, k), np.float32)
        dense[np.arange(n), answer.values.astype(np.int64)] = 1.0
        return dense
    values = answer.values.astype(np.float32)
    if answer.values.dtype == np.uint8:
        values /= 255.0
    values = np.clip(values, 0.0, 1.0)
    if answer.form is AnswerForm.TOP_K:
        assert answer.indices is not None  # noqa: S101 - by construction
        shown = values.shape[1]
        rest = np.clip(1.0 - values.sum(1, keepdims=True), 0.0, 1.0) / max(k - shown, 1)
        dense = np.repeat(rest, k, axis=1).astype(np.float32)
        np.put_along_axis(dense, answer.indices.astype(np.int64), values, axis=1)
    else:
        dense = values
    total = dense.sum(1, keepdims=True)
    uniform = np.full_like(dense, 1.0 / k)
    return np.where(total > 0, dense / np.where(total > 0, total, 1.0), uniform).astype(np.float32)
