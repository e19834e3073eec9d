# SPDX-License-Identifier: Apache-2.0
"""Real pictures that a bank's images come from: those of priors that are not procedural, and the server's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_view import BankView
from fedcpsc.runs.inherited import Inherited
from fedcpsc.runs.lineage import Lineage
from fedcpsc.runs.origins import BASIC_ORIGINS, PUBLIC, of_prior
from fedcpsc.runs.real_pictures import PublicNote, RealPictures, read_public

__all__ = ["real_pictures", "real_pictures_of_source"]


def real_pictures(
    mixture: Mapping[str, float], public: PublicNote | None, bank: AnswerBank | BankView, lineage: Lineage | None
) -> list[RealPictures]:
    """What the result says of them; empty where the bank is free of all data.

    Args:
        mixture: weight of each prior that the run draws from.
        public: the server's own pictures that the run draws from; None: it has none.
        bank: bank of the run.
        lineage: where the bank's answers came from; None where the run asked for all of them itself.
    """
    own = bank.origins[0 if lineage is None else lineage.images :]
    counts = np.bincount(own, minlength=len(bank.origin_names)).tolist()
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
        found.append(
            {
                "kind": "public",
                "name": public["name"],
                "what": f"{public['pictures']:,} unlabelled pictures of the server's own ({public['name']})",
                "pictures": public["pictures"],
                "sha256": public["sha256"],
                "images": images.get(BASIC_ORIGINS[PUBLIC]),
            }
        )
    return _together([*(() if lineage is None else lineage.real_pictures), *found])


def real_pictures_of_source(inherited: Inherited) -> list[RealPictures]:
    """The same of an earlier run, whose answers another one begins with.

    Raises:
        RunError: its note of the server's own pictures is damaged.
    """
    run = inherited.run
    return real_pictures(inherited.config.synthesis.prior, read_public(run.folder), inherited.bank, run.lineage)


def _together(found: Sequence[RealPictures]) -> list[RealPictures]:
    """Each source once, with the images of all its mentions."""
    each: dict[tuple[str, str, str | None], RealPictures] = {}
    for one in found:
        key = (one["kind"], one["name"], one["sha256"])
        before, images = each.get(key), one["images"]
        if before is not None and images is not None:
            images = None if before["images"] is None else before["images"] + images
        each[key] = {**one, "images": images}
    return list(each.values())
