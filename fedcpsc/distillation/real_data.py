# SPDX-License-Identifier: Apache-2.0
"""Real pictures that a run's query images come from: those of priors that are not procedural, and the server's own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedcpsc.data.unlabelled import PublicPictures
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.origins import BASIC_ORIGINS, PUBLIC, of_prior
from fedcpsc.runs.real_pictures import RealPictures

__all__ = ["real_pictures"]


def real_pictures(mixture: Mapping[str, float], public: PublicPictures | None, bank: AnswerBank) -> list[RealPictures]:
    """What the result says of them; empty where the run is free of all data.

    Args:
        mixture: weight of each prior.
        public: the server's own pictures; None: it has none.
        bank: bank of the run.
    """
    counts = np.bincount(bank.origins, minlength=len(bank.origin_names)).tolist()
    images: dict[str, int] = dict(zip(bank.origin_names, counts, strict=True)) if bank.notes_origins else {}
    found: list[RealPictures] = []
    for name in sorted(mixture):
        what = PRIOR_KINDS.get(name).real_data
        if what and mixture[name] > 0:
            drawn = images.get(of_prior(name))
            found.append(
                {"kind": "prior", "name": name, "what": what, "pictures": None, "sha256": None, "images": drawn}
            )
    if public is not None:
        count = len(public.images)
        found.append(
            {
                "kind": "public",
                "name": public.name,
                "what": f"{count:,} unlabelled pictures of the server's own ({public.name})",
                "pictures": count,
                "sha256": public.digest,
                "images": images.get(BASIC_ORIGINS[PUBLIC]),
            }
        )
    return found
