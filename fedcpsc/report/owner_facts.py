# SPDX-License-Identifier: Apache-2.0
"""What only a silo's owner may see: ledger, realised epsilon, class counts. It goes into the owner's report alone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcpsc.gatekeeper.ledger_words import ledger_facts
from fedcpsc.gatekeeper.owner_account import OWNER_FILE, OwnerAccount
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.teachers.manifest import load_manifest

__all__ = ["OwnerFacts", "read_owner"]


@dataclass(frozen=True)
class OwnerFacts:
    """One silo's private side.

    Attributes:
        silo: name of the silo.
        ledger: figures of the ledger, as `fedcpsc ledger show` prints them.
        epsilon_realised: epsilon computed from the votes that really came, itself private; None without a record.
        class_counts: number of private images of each class; None where the owner of an adopted teacher did not say.
        class_names: names of these classes; None where they have none.
        training: facts about the training, from the manifest.
        shares_class_counts: whether the policy sends them to the server.
        shares_answers: whether the policy lets the server hand answers on to others.
    """

    silo: str
    ledger: dict[str, Any]
    epsilon_realised: float | None
    class_counts: tuple[int, ...] | None
    class_names: tuple[str, ...] | None
    training: dict[str, Any]
    shares_class_counts: bool
    shares_answers: bool


def read_owner(silo_dir: Path) -> OwnerFacts:
    """Reads a silo's folder; charges nothing.

    Raises:
        SiloError: a file is missing or damaged.
    """
    manifest, policy = load_manifest(silo_dir), load_policy(silo_dir / POLICY_FILE)
    mark = mark_path(silo_dir, policy)
    opened = Ledger.read(silo_dir / LEDGER_FILE, population=manifest.population, high_water_mark=mark)
    with contextlib.closing(opened) as ledger:
        facts = ledger_facts(ledger)
    return OwnerFacts(
        silo=manifest.silo,
        ledger={**facts},
        epsilon_realised=OwnerAccount(silo_dir / OWNER_FILE).epsilon(facts["delta"]),
        class_counts=manifest.private_class_counts,
        class_names=manifest.class_names,
        training=manifest.training,
        shares_class_counts=bool(policy.share_class_counts),
        shares_answers=policy.share_answers,
    )
