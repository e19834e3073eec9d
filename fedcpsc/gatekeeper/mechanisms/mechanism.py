# SPDX-License-Identifier: Apache-2.0
"""What a mechanism is to a policy: its section, the teacher it needs, how it is built, what it promises.

Which mechanisms there are stands in `fedcpsc.choices`. Other packages cannot bring any: what a silo promises must be
proven and tested here. Everything fails closed: an unknown kind, another section or a teacher without the proof raises.
Reading a policy or a ledger imports all of them, so they import neither torch nor the mathematics of their noise before
they are built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fedcpsc.choices import MECHANISMS
from fedcpsc.errors import PolicyError, explain
from fedcpsc.gatekeeper.mechanisms.sections import MechanismPolicy
from fedcpsc.registry import Entry, Registry
from fedcpsc.teachers.proof import DpSgdProof, ShardsProof, proof_of

if TYPE_CHECKING:
    from fedcpsc.privacy.mechanisms import Mechanism
    from fedcpsc.teachers.manifest import Manifest

__all__ = ["ANY", "DP_TRAINED", "MECHANISM_KINDS", "OF_SHARDS", "MechanismKind", "TeacherNeed"]

Section = TypeVar("Section", bound=MechanismPolicy)
Proof = TypeVar("Proof", DpSgdProof, ShardsProof, None)


@dataclass(frozen=True)
class TeacherNeed(Generic[Proof]):
    """What a mechanism's guarantee asks of the teacher.

    Attributes:
        words: description of the teacher, for the documentation's table.
        proof: class of the proof that the manifest must hold.
        why: reason to refuse a manifest without it.
        remedy: what the owner can do then.
    """

    words: str
    proof: type[Proof]
    why: str = ""
    remedy: str = ""

    def check(self, section: MechanismPolicy, manifest: Manifest) -> Proof:
        """The manifest's proof.

        Args:
            section: the policy's section, for the message.
            manifest: manifest of the teacher.

        Raises:
            PolicyError: the manifest has no such proof, or an incomplete one.
        """
        if self.proof is type(None):  # then a manifest's claim is not read, and may be lost
            return None
        proof = proof_of(manifest)
        if not isinstance(proof, self.proof):
            raise PolicyError(explain("mechanism.kind", section.kind, self.why, self.remedy))
        return proof


ANY = TeacherNeed("any", type(None))
DP_TRAINED = TeacherNeed(
    "trained with `kind: dp_sgd`", DpSgdProof, "the manifest has no proof of it", "train with kind: dp_sgd"
)
OF_SHARDS = TeacherNeed(
    "trained with `kind: shards`", ShardsProof, "needs a teacher of disjoint shards", "train with kind: shards"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MechanismKind(Entry, Generic[Section, Proof]):
    """A mechanism that policies may name.

    Attributes:
        section: class of the policy's section `mechanism`.
        teacher: what the teacher must be.
        make: function of the section and the teacher's proof that makes the mechanism.
        cost: mu^2 that one answer costs, as a formula.
        guarantee: what is proven, in one sentence.
        caution: what the owner should think twice about; empty where nothing.
        may_abstain: whether a row of zeros may be the answer, which labels cannot express.
    """

    section: type[Section]
    teacher: TeacherNeed[Proof]
    make: Callable[[Section, Proof], Mechanism]
    cost: str
    guarantee: str
    caution: str = ""
    may_abstain: bool = False

    def build(self, section: MechanismPolicy, manifest: Manifest) -> Mechanism:
        """The mechanism for one policy and one teacher.

        Args:
            section: section `mechanism` of the policy.
            manifest: manifest of the teacher.

        Raises:
            PolicyError: the section is of another class, or the teacher is not what the guarantee needs.
        """
        if type(section) is not self.section:
            raise PolicyError(
                explain("mechanism", section, "is unknown here", "install the version that wrote the policy")
            )
        return self.make(section, self.teacher.check(section, manifest))


MECHANISM_KINDS: Registry[MechanismKind[Any, Any]] = Registry(MECHANISMS, MechanismKind)
