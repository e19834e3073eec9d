# SPDX-License-Identifier: Apache-2.0
"""Judges a student on the owner's held-out images, and answers with numbers of images.

    check > ledger (charge, committed) > the student sees the images > noise > ledger (reply) > numbers

What is sent is checked before anything is charged, by what the asker itself knows: the network's name, its sizes, its
tensors. A refusal is a code that depends on public quantities alone.

Images pass through the network one at a time: in batches, rounding may make one image's output depend on which others
lie beside it, and a network made for it could turn that into many images that change with one. An output that is not
finite is wrong, and of no class. How long it takes shows about how many images there are, which noise does not cover;
see docs/threats.md.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.data.images import to_pixels
from fedcpsc.errors import ProtocolError, RefusalCode, Refused, SiloError
from fedcpsc.gatekeeper.evaluation_policy import EvaluationPolicy
from fedcpsc.gatekeeper.evaluation_promise import (
    EVALUATION,
    EXACT_EVALUATIONS,
    cost_to_come,
    evaluation_charge,
    evaluations_left,
)
from fedcpsc.gatekeeper.guarantee import Guarantee
from fedcpsc.gatekeeper.held_out import HeldOut
from fedcpsc.ledger.ledger import Allowance, Budget, Charge, Ledger, Reserved, Stored
from fedcpsc.models.classifier import HeadedClassifier
from fedcpsc.models.sent import network_of_bytes
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.evaluation import EvaluationAnswer, EvaluationOffer, EvaluationQuery, PerClassCounts

__all__ = ["StudentJudge", "predictions"]

_NO_CAP = 2**62


@dataclass(frozen=True, eq=False)
class StudentJudge:
    """A silo's held-out images, behind the policy and the ledger; several threads may call it.

    Args:
        section: section `evaluation` of the policy.
        held_out: images, labelled in the silo's own classes.
        classes: number of the silo's classes, without "none of these".
        class_names: their names; None where they have none.
        ledger: open ledger of the population.
        guarantee: mechanism, caps and claim of the silo.
    """

    section: EvaluationPolicy
    held_out: HeldOut
    classes: int
    class_names: tuple[str, ...] | None
    ledger: Ledger
    guarantee: Guarantee
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def images(self) -> int | None:
        """Number of held-out images, where the policy says that it is public."""
        return len(self.held_out) if self.section.public_size else None

    def offer(self) -> EvaluationOffer:
        """What the silo's description says of evaluations: facts of the policy, and how many are left.

        Raises:
            LedgerError: where the ledger cannot be read.
        """
        return EvaluationOffer(
            total=self.section.evaluations,
            left=evaluations_left(self.section, self.ledger),
            sigma=self.section.sigma or 0.0,
            held_out=self.images,
            max_bytes=self.section.max_bytes,
            per_class=self.section.per_class,
        )

    def set_aside(self) -> int:
        """mu^2 of the evaluations that are left, in units of 1e-12, which answers may not use up.

        Raises:
            LedgerError: where the ledger cannot be read.
        """
        return cost_to_come(self.section, self.ledger)

    def evaluate(self, query: EvaluationQuery) -> EvaluationAnswer:
        """How many images the student classifies rightly; the same query again gets the same numbers, uncharged.

        Raises:
            Refused: with a code; nothing is charged then.
            LedgerError: where the ledger cannot be read or written.
        """
        self._check(query)
        payload, charge = query.payload_hash, self._charge()
        found = self.ledger.recall(query.query_id, payload, charge, principal=query.principal, limit=self._limit)
        if found is None or isinstance(found, Reserved):
            with self._one_at_a_time:
                network = self._network(query)
                if found is None:
                    found = self.ledger.reserve(
                        query.query_id,
                        payload,
                        charge,
                        principal=query.principal,
                        run=query.run,
                        limit=self._limit,
                        allowance=Allowance(EVALUATION, self.section.evaluations),
                    )
                if isinstance(found, Reserved):
                    return self._judged(query, network)
        if isinstance(found, Stored):
            return _decoded(found.reply)
        raise Refused(RefusalCode.REPLAY if found.conflict else RefusalCode.BUDGET)

    def _judged(self, query: EvaluationQuery, network: HeadedClassifier) -> EvaluationAnswer:
        """What is charged already: the network sees the images here, and nowhere else."""
        mechanism = self.section.mechanism(self.ledger.status().unit)
        if not mechanism.dp:  # from now on nothing bounds what was disclosed, and the ledger says so for ever
            self.ledger.release(EXACT_EVALUATIONS, Charge(0, private=False, mechanism="exact evaluations"))
        counts = self._counts(predictions(network, self.held_out), query.outputs)
        released = [int(count) for count in mechanism.release(counts)]
        answer = EvaluationAnswer(
            query_id=query.query_id,
            right=released[0],
            sigma=mechanism.sigma,
            held_out=self.images,
            evaluations_left=evaluations_left(self.section, self.ledger),
            claim=self.guarantee.claim,
            per_class=self._per_class(released[1:]) if self.section.per_class else None,
        )
        mine = to_bytes(answer)
        sent = self.ledger.store(query.query_id, mine, principal=query.principal)
        return answer if sent == mine else _decoded(sent)

    def _counts(self, predicted: npt.NDArray[np.int64], outputs: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """The right images, int64 [1]; by class also the images, the right ones and the predictions, [1 + 3 k].

        Only the silo's own classes are counted: a network with many more outputs than those, made for the purpose,
        would else tell of each image apart.
        """
        labels, own = self.held_out.labels, np.asarray(outputs, np.int64)
        right = predicted == own[labels]
        if not self.section.per_class:
            return np.array([right.sum()], np.int64)
        images, of_right = (np.bincount(of, minlength=self.classes) for of in (labels, labels[right]))
        said = (predicted[:, None] == own).sum(0)
        return np.concatenate([[right.sum()], images, of_right, said]).astype(np.int64)

    def _per_class(self, released: list[int]) -> PerClassCounts:
        own = self.classes
        return PerClassCounts(tuple(released[:own]), tuple(released[own : 2 * own]), tuple(released[2 * own :]))

    @property
    def _limit(self) -> Budget:
        """The cap on noise; an evaluation answers no image, so that no cap on answers holds it up."""
        return Budget(_NO_CAP, self.guarantee.limit.mu2)

    def _charge(self) -> Charge:
        return evaluation_charge(self.section, self.ledger.status().unit)

    def _check(self, query: EvaluationQuery) -> None:
        """Refuses what is seen at a glance not to be a student for this silo."""
        if len(query.weights) > self.section.max_bytes:
            raise Refused(RefusalCode.STUDENT, f"a student of {len(query.weights)} bytes")
        if len(query.outputs) != self.classes or query.class_names != self.class_names:
            raise Refused(RefusalCode.STUDENT, "of other classes than the silo's")
        if query.image_shape != self.held_out.images.shape[1:]:
            raise Refused(RefusalCode.STUDENT, f"for images {query.image_shape}")

    def _network(self, query: EvaluationQuery) -> HeadedClassifier:
        """The student, where all of its tensors are what its architecture has."""
        try:
            return network_of_bytes(
                query.architecture, query.classes, query.image_shape, query.width, query.weights.tobytes()
            )
        except ProtocolError as error:
            raise Refused(RefusalCode.STUDENT, str(error)) from error


def predictions(network: HeadedClassifier, held_out: HeldOut) -> npt.NDArray[np.int64]:
    """Output that is largest for each image, int64 [N], -1 where one is not finite; each by itself, on the CPU.

    Args:
        network: network in evaluation mode.
        held_out: images with labels.
    """
    found = np.full(len(held_out), -1, np.int64)
    with torch.inference_mode():
        for place, image in enumerate(held_out.images):
            logits = network(to_pixels(torch.from_numpy(image[np.newaxis].copy())))[0]
            if bool(logits.isfinite().all()):
                found[place] = int(logits.argmax())
    return found


def _decoded(reply: bytes) -> EvaluationAnswer:
    message = from_bytes(reply)
    if not isinstance(message, EvaluationAnswer):
        raise SiloError("the stored reply is not one of an evaluation")
    return message
