# SPDX-License-Identifier: Apache-2.0
"""How good the student may be, by how far the silos agree: for a server without test images.

A student learns what the silos see in invented images. Where silos that were trained apart see the same in them, that
is something of the classes; where they do not, it is each network's own guess, and little of it holds for real images.
Of all that a server sees, agreement ranks students best (`benchmarks/estimates.py`, docs/what_to_expect.md). The line
below is fitted to whole runs of the default recipe with 5,000 answers, on pictures of several kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.distillation.silo_state import SiloState
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.result import Estimate

__all__ = ["ERROR", "FEWEST", "LINE", "estimate", "share_right"]

LINE = (4.97, -5.27)
"""Logarithm of the student's errors in percent: at no agreement, and what full agreement adds."""

ERROR = 0.06
"""Mean error of the line, of kinds of pictures that it was not fitted to."""


FEWEST = 4000
"""Images that must have been asked about: after fewer, students are worse than the line says."""


def estimate(standing: Standing | None, silos: Iterable[SiloState], images: int) -> Estimate | None:
    """The estimate; None where the line was not measured on such runs.

    That is where silos are not judged, show something else than probabilities without noise, or were asked little.

    Args:
        standing: how far each silo may be believed; None where that is not judged.
        silos: states of the silos of the run.
        images: number of images in the bank.
    """
    agreement = None if standing is None else standing.usual_agreement
    plain = all(s.form is AnswerForm.PROBABILITIES and not s.description.noise_sigma for s in silos)
    if agreement is None or not plain or images < FEWEST:
        return None
    return {
        "agreement": round(agreement, 4),
        "accuracy": round(share_right(agreement), 4),
        "error": ERROR,
    }


def share_right(agreement: float) -> float:
    """Accuracy that students of silos that agree so far reached, in [0, 1].

    Args:
        agreement: median agreement of two silos, in [0, 1].
    """
    start, slope = LINE
    return 1 - min(1.0, math.exp(start + slope * agreement) / 100)
