# SPDX-License-Identifier: Apache-2.0
"""For one silo's owner alone: ledger, realised epsilon, class counts."""

from __future__ import annotations

from typing import Any

from fedcpsc.report.blocks import Facts, Folded, Note, Section, Table, class_label
from fedcpsc.report.owner_facts import OwnerFacts

__all__ = ["owners_part"]


def owners_part(owner: OwnerFacts) -> Section:
    """For one silo's owner alone."""
    ledger, answers = owner.ledger, owner.ledger["answers"]
    spent, realised = ledger["epsilon_spent"], owner.epsilon_realised
    items = (
        ("population", str(ledger["population"])),
        ("answers over all time", f"{answers['spent']:,} of {answers['budget']:,}; {answers['left']:,} left"),
        ("queries", f"{ledger['queries']:,} answered, {ledger['refused']:,} refused"),
        ("answers without a guarantee", f"{ledger['answers_without_guarantee']:,}"),
        (
            "epsilon of all that has left",
            _epsilon(spent, ledger, "no guarantee"),
        ),
        ("epsilon realised on the real votes (itself private)", _epsilon(realised, ledger, "-")),
        ("class counts", "sent to the server" if owner.shares_class_counts else "sent to nobody"),
        ("answers handed on to others", "allowed" if owner.shares_answers else "not allowed"),
        ("training", ", ".join(f"{key} {value}" for key, value in owner.training.items())),
    )
    counts = [(class_label(owner.class_names, k), f"{count:,}") for k, count in enumerate(owner.class_counts or ())]
    return Section(
        "owner",
        f"For the owner of {owner.silo} alone",
        (
            Note(
                "Ledger, realised epsilon and class counts are the silo's own: do not pass this page on.",
                "Private",
            ),
            Facts(items),
            Folded("Private images by class", (Table.of("Private images", ("class", "images"), counts),)),
        ),
    )


def _epsilon(value: float | None, ledger: dict[str, Any], without: str) -> str:
    return without if value is None else f"{value:.4g} at delta {ledger['delta']:g}, per {ledger['unit']}"
