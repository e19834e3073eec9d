# SPDX-License-Identifier: Apache-2.0
"""Where a bank's images come from: a code for each image, and a table of what the codes mean in the journal's head.

| code | name | where the image comes from |
|---|---|---|
| 0 | `prior` | a prior whose kind was not noted |
| 1 | `generator` | the generator |
| 2 | `public` | the server's own unlabelled pictures |
| 3 and more | `prior:NAME` | the prior NAME |

Banks of earlier versions have neither table nor codes. An image of theirs that was made for a class is the generator's,
any other a prior's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from fedcpsc.late_numpy import np, npt

__all__ = [
    "BASIC_ORIGINS",
    "GENERATOR",
    "MOST_ORIGINS",
    "PRIOR",
    "PUBLIC",
    "Codes",
    "check_origins",
    "codes_of_priors",
    "of_prior",
    "origin_table",
    "origins_of",
    "translated",
]

Codes: TypeAlias = "npt.NDArray[np.uint8]"

PRIOR: Final = 0
GENERATOR: Final = 1
PUBLIC: Final = 2
BASIC_ORIGINS: Final = ("prior", "generator", "public")
"""Names of the codes that mean the same in every bank."""

MOST_ORIGINS: Final = 256  # codes of 8 bits


def of_prior(name: str) -> str:
    """Name of the origin of images that the prior `name` drew."""
    return f"{BASIC_ORIGINS[PRIOR]}:{name}"


def origin_table(priors: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of all origins by code, for a bank with images of these priors."""
    return (*BASIC_ORIGINS, *(of_prior(name) for name in sorted(set(priors))))[:MOST_ORIGINS]


def codes_of_priors(kinds: npt.NDArray[np.int64]) -> Codes:
    """Codes in `origin_table(mixture)`, uint8 [n], of priors by their numbers in `sorted(mixture)`, int64 [n]."""
    codes = kinds + len(BASIC_ORIGINS)
    return np.where(codes < MOST_ORIGINS, codes, PRIOR).astype(np.uint8)


def translated(codes: Codes, names: Sequence[str], table: Sequence[str]) -> Codes:
    """Codes of `names` as codes of `table`; of a prior that it does not name, the code of priors."""
    places = {name: code for code, name in enumerate(table)}
    return np.array([places.get(name, PRIOR) for name in names], np.uint8)[codes]


def check_origins(table: Sequence[object]) -> tuple[str, ...]:
    """The table of a journal's head as it was written.

    Raises:
        ValueError: it is none.
    """
    names = tuple(str(name) for name in table)
    if names[: len(BASIC_ORIGINS)] != BASIC_ORIGINS or len(set(names)) != len(names) or len(names) > MOST_ORIGINS:
        raise ValueError(
            f"origins must be up to {MOST_ORIGINS} different names that begin with {', '.join(BASIC_ORIGINS)}"
        )
    return names


def origins_of(pseudo_labels: npt.NDArray[np.int64]) -> Codes:
    """What the classes that images were made for tell of their origins: uint8 [rows] of int64 [rows], -1 for none."""
    return np.where(np.asarray(pseudo_labels) < 0, PRIOR, GENERATOR).astype(np.uint8)
