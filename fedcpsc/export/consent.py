# SPDX-License-Identifier: Apache-2.0
"""Whose answers may be handed on: those of silos that say so themselves (`share_answers`), and of no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.protocol.messages import Description

__all__ = ["agreed_silos"]

_SHOWN = 20
_SINCE = (1, 3)  # version of the protocol from which on a silo says what it allows


def agreed_silos(
    silos: Sequence[str],
    said: Mapping[str, Description] | None,
    excluded: Sequence[str],
    run: str,
    owners: Mapping[str, str],
) -> list[str]:
    """The silos whose answers go into a data set, all of which have agreed.

    Args:
        silos: names of the run's silos.
        said: what each said of itself; None where the run has no record of it, as those of earlier versions.
        excluded: names of silos that are left out.
        run: path of the run's folder, for the errors.
        owners: name of the silo that gave them, by the name of answers that are kept apart from the silo's own: its
            latest word is about these, too.

    Raises:
        ConfigError: an excluded name is no silo's, or no silo is left.
        RunError: a silo that is not excluded has not agreed; each is named, with the remedy.
    """
    unknown = [name for name in excluded if name not in silos]
    if unknown:
        shown = ", ".join(map(repr, silos[:_SHOWN]))
        constraint = f"no silo of this run has the name; its {len(silos)} silos are {shown}"
        raise ConfigError(explain("--exclude", ", ".join(unknown), constraint, "fix the name"))
    left = [silo for silo in silos if silo not in excluded]
    if not left:
        raise ConfigError(explain("--exclude", ", ".join(excluded), "excludes every silo of the run", "leave one"))
    known, reasons = said or {}, {}
    for silo in left:
        names = [name for name in (owners.get(silo, silo), silo) if name in known] or [silo]
        if why := next(filter(None, (_why_not(known.get(name)) for name in names)), None):
            reasons[silo] = why
    if reasons:
        told = "; ".join(f"{silo}: {why}" for silo, why in list(reasons.items())[:_SHOWN])
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        leave = " ".join(f"--exclude {_quoted(silo)}" for silo in list(reasons)[:_SHOWN])
        remedy = (
            f"leave them out by {leave}; or let their owners set share_answers: true in policy.yaml, and go on with the"
            " run, which asks them again"
        )
        constraint = f"whose answers may not be handed on ({told}{more})"
        raise RunError(explain("run", run, f"has {len(reasons)} silo(s) {constraint}", remedy))
    return left


def _why_not(said: Description | None) -> str | None:
    """Why a silo's answers stay with the server, in words; None where its owner lets them be handed on."""
    if said is None:
        return "the run has no record of what its owner allows"
    if said.share_answers:
        return None
    version = tuple(int(part) for part in said.version.split(".")[:2] if part.isdigit())
    if version < _SINCE:
        return f"it does not say, for it speaks protocol {said.version}"
    return "its policy says share_answers: false"


def _quoted(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else repr(name)
