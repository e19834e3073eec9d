# SPDX-License-Identifier: Apache-2.0
"""What a silo says is the claim of a stranger: what its description and its answers may hold, checked by themselves.

A silo is another organisation's program. The codec has checked the types of what came over a wire; here are the bounds
within which the engine's arithmetic stays finite and its memory small, whoever speaks and over whatever transport.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from fedcpsc.class_names import fault_of_class_names
from fedcpsc.errors import explain
from fedcpsc.protocol.messages import MAX_CLASSES, TEXT_LIMIT, Answer, AnswerForm, ClassReport, Description, DpClaim

__all__ = ["MOST_COUNT", "fault_of_answer", "fault_of_description"]

LEAST_NOISE, MOST_NOISE = 1e-6, 1e4  # standard deviations that `denoising` reads without loss, on probabilities
MOST_COUNT = 1e12  # images of a class; 10,000 silos of so many sum to a finite float32
MOST_PIXELS = 2**24  # values of an image, C x H x W
_WHOLE = 2**53  # below it every whole number is a float
_MOST_EPSILON = 1e12
_VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")
_REACH = 50.0  # standard deviations within which noise lies: a Gaussian is beyond 50 once in 10^500 draws
_ROUNDING = 0.01
_LARGEST_SUM = 2.0  # rounding, to 8 bits or by `hardening`, at most doubles what it rounds up; the rest may vanish
_ASK_OWNER = "let its owner check manifest and policy"


def fault_of_description(description: Description) -> str | None:
    """What in a description is out of bounds or contradicts the rest of it, explained; None where nothing is.

    Args:
        description: description by a silo; its fields may be of any type and value.
    """
    try:
        return next((fault for fault in _faults(description) if fault is not None), None)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # a field is of a type that no silo sends
        return explain("description", type(error).__name__, "cannot be read", _ASK_OWNER)


def fault_of_answer(answer: Answer, described: Description, count: int, form: AnswerForm) -> str | None:
    """Why an answer cannot be taken, in words; None where it can be.

    Without stated noise its values must be distributions: each in [0, 1], and together at most what rounding makes of
    1. With noise they must lie as near to distributions as noise of the stated size leaves them.

    Args:
        answer: answer by a silo.
        described: description that the silo gave of itself.
        count: number of images that it was asked about.
        form: answer form that it was asked for.
    """
    if answer.count != count or answer.classes != described.classes or answer.form is not form:
        return f"answered {answer.count} x {answer.classes} {answer.form.value}, not what was asked"
    if not _whole(answer.answers_left):
        return explain("answers_left", answer.answers_left, "must be a whole number >= 0", "check the silo")
    return None if form is AnswerForm.LABEL else _fault_of_values(answer, described.noise_sigma)


def _fault_of_values(answer: Answer, sigma: float) -> str | None:
    values = answer.values.astype(np.float64) / (255 if answer.values.dtype == np.uint8 else 1)
    if not np.isfinite(values).all():
        return "answered NaN or infinity, which is no distribution"
    noise = sigma * _REACH
    if values.min() < -_ROUNDING - noise or values.max() > 1 + _ROUNDING + noise:
        shown = f"{values.min():.4g} to {values.max():.4g}"
        return f"answered values from {shown}, which are no probabilities with noise {sigma:g}"
    sums, noise = values.sum(1), noise * math.sqrt(values.shape[1])
    if sums.max() > _LARGEST_SUM + _ROUNDING + noise or sums.min() < -_ROUNDING - noise:
        shown = f"{sums.min():.4g} to {sums.max():.4g}"
        return f"answered rows that sum to {shown}, which are no distributions with noise {sigma:g}"
    return None


def _faults(said: Description) -> Iterator[str | None]:
    """The checks in order, each a fault or None; later ones rely on what the earlier ones have found to hold."""
    yield _must(_is_name(said.silo), "silo", said.silo, f"must be 1 to {TEXT_LIMIT} printable characters")
    good = isinstance(said.version, str) and bool(_VERSION.fullmatch(said.version))
    yield _must(good, "version", said.version, "must be numbers with points between them")
    good = said.teacher is None or _is_name(said.teacher)
    yield _must(good, "teacher", said.teacher, f"must be 1 to {TEXT_LIMIT} printable characters")
    yield _must(type(said.none_class) is bool, "none_class", said.none_class, "must be true or false")
    yield _must(type(said.recipes) is bool, "recipes", said.recipes, "must be true or false")
    yield _must(type(said.share_answers) is bool, "share_answers", said.share_answers, "must be true or false")
    good = _whole(said.classes) and 2 <= said.classes <= MAX_CLASSES
    yield _must(good, "classes", said.classes, f"must be in [2, {MAX_CLASSES}]")
    own = said.classes - said.none_class
    if said.class_names is not None:
        yield _must(isinstance(said.class_names, tuple), "class_names", said.class_names, "must be names, in order")
        yield fault_of_class_names(said.class_names, own)
    sides = said.image_shape
    good = isinstance(sides, tuple) and len(sides) == 3 and all(_whole(side) and side >= 1 for side in sides)
    yield _must(good, "image_shape", sides, "must be three whole numbers >= 1")
    yield _must(math.prod(sides) <= MOST_PIXELS, "image_shape", sides, f"must hold at most {MOST_PIXELS:,} values")
    forms = said.forms
    good = isinstance(forms, tuple) and len(forms) > 0 and all(isinstance(form, AnswerForm) for form in forms)
    yield _must(good and len(set(forms)) == len(forms), "forms", forms, "must be answer forms, each once")
    good = _whole(said.images_per_query) and said.images_per_query >= 1
    yield _must(good, "images_per_query", said.images_per_query, "must be a whole number >= 1")
    yield _must(_whole(said.answers_total), "answers_total", said.answers_total, "must be a whole number >= 0")
    good = _whole(said.answers_left) and said.answers_left <= said.answers_total
    yield _must(good, "answers_left", said.answers_left, f"must be in [0, answers_total={said.answers_total}]")
    sigma = said.noise_sigma
    good = _number(sigma) and (sigma == 0 or LEAST_NOISE <= sigma <= MOST_NOISE)
    yield _must(good, "noise_sigma", sigma, f"must be 0, or in [{LEAST_NOISE:g}, {MOST_NOISE:g}]")
    yield _fault_of_claim(said.claim)
    if said.class_report is not None:
        yield _fault_of_report(said.class_report, own)


def _fault_of_claim(claim: DpClaim) -> str | None:
    words = (claim.unit, claim.relation, claim.mechanism)
    if not isinstance(claim.dp, bool) or not all(word is None or _is_name(word) for word in words):
        return explain("claim", claim, "its words must be printable text", _ASK_OWNER)
    epsilon, delta = claim.epsilon, claim.delta
    good = epsilon is None or (_number(epsilon) and 0 <= epsilon <= _MOST_EPSILON)
    good = good and (delta is None or (_number(delta) and 0 <= delta <= 1))
    good = good and (not claim.dp or (epsilon is not None and epsilon > 0))
    return _must(good, "claim", claim, "epsilon must be finite and > 0, and delta in [0, 1]")


def _fault_of_report(report: ClassReport, classes: int) -> str | None:
    if not isinstance(report.counts, tuple) or len(report.counts) != classes:
        shown = len(report.counts)
        return explain("class counts", shown, f"must be one for each of its {classes} classes", _ASK_OWNER)
    bad = next((count for count in report.counts if not (_number(count) and 0 <= count <= MOST_COUNT)), None)
    fault = _must(bad is None, "class counts", bad, f"must be numbers in [0, {MOST_COUNT:g}]")
    return fault or _fault_of_claim(report.dp)


def _must(good: bool, name: str, value: object, constraint: str) -> str | None:
    return None if good else explain(name, value, constraint, _ASK_OWNER)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _WHOLE


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TEXT_LIMIT and value.isprintable()
