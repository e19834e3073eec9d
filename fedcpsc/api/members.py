# SPDX-License-Identifier: Apache-2.0
"""The silos of a federation in this process: each one alone, and whether they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.errors import FederationError, SiloError, explain
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.label_sets import LabelSets, unite
from fedcpsc.protocol.messages import DescribeRequest, Description
from fedcpsc.silos.adopted import classes_of
from fedcpsc.teachers.manifest import Manifest

__all__ = ["Member", "SiloStatus", "check_fit", "label_sets_of", "status_of"]


@dataclass(frozen=True)
class SiloStatus:
    """A silo as its gatekeeper describes it now.

    Attributes:
        name: name of the silo.
        folder: path of its folder, with policy and ledger.
        answers_total: number of images that its budget holds over all time.
        answers_left: number of images that it will still answer.
        dp: whether its answers are differentially private.
        epsilon, delta: parameters of that guarantee; None where there is none.
        mechanism: name of the policy's mechanism.
        notes: sentences for its owner: what a trial of the teacher showed, what was kept or replaced.
    """

    name: str
    folder: Path
    answers_total: int
    answers_left: int
    dp: bool
    epsilon: float | None
    delta: float | None
    mechanism: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Member:
    """An open silo of a federation.

    Attributes:
        folder: path of its folder.
        manifest: manifest of its teacher.
        gatekeeper: gatekeeper that answers for it.
        facts: teacher past the gatekeeper, to measure with.
        notes: sentences for its owner.
    """

    folder: Path
    manifest: Manifest
    gatekeeper: Gatekeeper
    facts: SiloFacts
    notes: tuple[str, ...] = ()


def status_of(member: Member) -> SiloStatus:
    """A silo as its gatekeeper describes it now.

    Raises:
        SiloError: where its ledger cannot be read.
    """
    said = member.gatekeeper.describe(DescribeRequest())
    if not isinstance(said, Description):
        shown = f"does not describe itself ({said.code.value})"
        raise SiloError(explain("silo", member.manifest.silo, shown, "look at its ledger: fedcpsc ledger verify"))
    claim = said.claim
    return SiloStatus(
        name=said.silo,
        folder=member.folder,
        answers_total=said.answers_total,
        answers_left=said.answers_left,
        dp=claim.dp,
        epsilon=claim.epsilon,
        delta=claim.delta,
        mechanism=claim.mechanism,
        notes=member.notes,
    )


def label_sets_of(members: Sequence[Member]) -> LabelSets:
    """The federation's classes and each silo's own, in the order of the silos' names, as a run unites them.

    Raises:
        FederationError: where the silos' classes are none that go together.
    """
    by_name = sorted((member.manifest for member in members), key=lambda manifest: manifest.silo)
    return unite({manifest.silo: classes_of(manifest) for manifest in by_name}, {}, complete=True)


def check_fit(members: Sequence[Member]) -> None:
    """Does nothing where the silos can be one federation.

    Raises:
        FederationError: they cannot.
    """
    shapes = {member.manifest.silo: member.manifest.image_shape for member in members}
    if len(set(shapes.values())) > 1:
        remedy = "bring the models to one shape, or leave out those that differ"
        raise FederationError(explain("image_shape", shapes, "must be the same at every silo", remedy))
    label_sets_of(members)
