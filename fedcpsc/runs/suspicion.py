# SPDX-License-Identifier: Apache-2.0
"""Words about silos that speak against themselves by their answers: the same on terminal, page and log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fedcpsc.plain_yaml import load_plain, quoted
from fedcpsc.runs.metrics import SiloLine

__all__ = ["NO_TWO_AGREE", "SuspicionWatch", "describe_suspicion", "exclusion", "suspicions_of"]

NO_TWO_AGREE = "no two silos agree"
"""Why silos are not judged, where that is itself a reason to look: which of them to believe is not known."""

_NUMBER = re.compile(r"[0-9]+")  # one more contradicted class is no other suspicion
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def suspicions_of(silos: Mapping[str, SiloLine]) -> dict[str, str]:
    """What speaks against each silo that anything speaks against, by its name.

    Args:
        silos: figures of each silo, of a line of metrics.jsonl.
    """
    return {name: why for name, silo in silos.items() if (why := silo.get("suspicion"))}


def describe_suspicion(silo: str, why: str) -> str:
    """The suspicion as one sentence without its full stop."""
    return f"{silo} is suspected: {why}"


def exclusion(silos: Sequence[str], excluded: Sequence[str] = ()) -> str:
    """The setting that leaves out these silos as well, as YAML in one line.

    Args:
        silos: names of the silos to leave out.
        excluded: names of those that are left out already.
    """
    names = [*excluded, *(silo for silo in silos if silo not in excluded)]
    return f"aggregation.exclude: [{', '.join(map(_yaml, names))}]"


class SuspicionWatch:
    """Tells when a suspicion arises, becomes another one, or goes; not in every round that it lasts."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def changes(self, suspicions: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """One line for each suspicion that is new since the last call, and one for each silo that has none any more.

        Args:
            suspicions: what speaks against each suspected silo, by its name.
        """
        before, self._kinds = self._kinds, {silo: _NUMBER.sub("", why) for silo, why in suspicions.items()}
        arisen = [
            f"{describe_suspicion(silo, why)}; {exclusion([silo])} leaves it out"
            for silo, why in suspicions.items()
            if before.get(silo) != self._kinds[silo]
        ]
        return arisen, [f"{silo} is no longer suspected" for silo in sorted(before.keys() - suspicions.keys())]


def _yaml(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and load_plain(name) == name else quoted(name)
