# SPDX-License-Identifier: Apache-2.0
"""How much of what the silos know the student has: for a server without test images.

Nobody but the silos knows how good they are; what a server can see is how much of it arrives. A student learns what the
silos see in invented images. Where silos that were trained apart see the same in them, that is something of the
classes; where they do not, it is each network's own guess, and little of it holds for real images. And a student that
calls an image another class as soon as it is cropped and in another light has learnt little of shapes. Both numbers
together say how the student's accuracy compares with the ensemble's (`benchmarks/estimates.py`,
docs/what_to_expect.md). The line below is fitted to whole runs of the default recipe with 5,000 answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.choices import DEFAULT_MIXTURE
from fedcpsc.data.images import to_pixels, to_uint8
from fedcpsc.data.random_views import random_view
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.silo_state import SiloState
from fedcpsc.large_images import together
from fedcpsc.models.classifier import Classifier
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.result import Estimate

__all__ = ["ERROR", "FEWEST", "LINE", "estimate", "expected_share", "steadfastness"]

LINE = (-2.77, 7.01, 3.19)
"""Logit of the share: without agreement and steadfastness, and what each of the two adds."""

ERROR = 0.05
"""Mean error of the share, of kinds of pictures that the line was not fitted to."""

FEWEST = 4000
"""Images that must have been asked about: after fewer, students are worse than the line says."""

_IMAGES = 2000
_PIXELS = 64 * 64  # of larger images there are fewer, so that they take no longer


def estimate(
    standing: Standing | None, silos: Iterable[SiloState], images: int, student: Classifier
) -> Estimate | None:
    """The estimate; None where the line was not measured on such runs.

    That is where silos are not judged, show something else than probabilities without noise, or were asked little.

    Args:
        standing: how far each silo may be believed; None where that is not judged.
        silos: states of the silos of the run.
        images: number of images in the bank.
        student: the finished student.
    """
    agreement = None if standing is None else standing.usual_agreement
    plain = all(s.form is AnswerForm.PROBABILITIES and not s.description.noise_sigma for s in silos)
    if agreement is None or not plain or images < FEWEST:
        return None
    steady = steadfastness(student)
    return {
        "agreement": round(agreement, 4),
        "steadfastness": round(steady, 4),
        "share": round(expected_share(agreement, steady), 4),
        "error": ERROR,
    }


def steadfastness(student: Classifier) -> float:
    """Share of images of the default priors that a student gives the same class in another view, in [0, 1].

    The images are the same at every call, and nobody was asked about them; views are those of contrastive pre-training.

    Args:
        student: the finished student.
    """
    shape, stream = student.image_shape, torch.Generator().manual_seed(1)
    count = together(_IMAGES, shape, _IMAGES * _PIXELS)
    images = to_uint8(sample_prior(dict.fromkeys(DEFAULT_MIXTURE, 1.0), count, shape, stream))
    views = to_uint8(random_view(to_pixels(images), stream))
    before, after = (predict(student, each.numpy()).argmax(1) for each in (images, views))
    return float((before == after).mean())


def expected_share(agreement: float, steady: float) -> float:
    """The student's accuracy as a share of the ensemble's, in [0, 1].

    Args:
        agreement: median agreement of two silos, in [0, 1].
        steady: result of `steadfastness`.
    """
    start, by_agreement, by_steadfastness = LINE
    return 1 / (1 + math.exp(-(start + by_agreement * agreement + by_steadfastness * steady)))
