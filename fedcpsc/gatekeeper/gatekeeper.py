# SPDX-License-Identifier: Apache-2.0
"""The gatekeeper answers a query or refuses it; nothing else has access to the teacher.

    validate > policy > ledger (charge, committed) > teacher > mechanism > answer form > ledger (reply) > answer

A student that is sent to be judged goes to `evaluating.StudentJudge`, in the same order, past the teacher.

A recipe in a query is first turned into its images; from then on the query is treated like any other.

A refusal is a code. All codes but `internal` and `out_of_service` depend only on public quantities; `internal` says
that the teacher failed on some image (under noise it abstains instead), and `out_of_service` that it did so before, see
`outage.py`. One query at a time is charged and computed: while the teacher fails, no second one is charged. The reason
goes to the owner's log, which holds ids, counts and codes, never images, outputs or accuracies.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedcpsc.errors import FedcpscError, ProtocolError, RefusalCode, Refused, SiloError
from fedcpsc.gatekeeper.guarantee import Guarantee
from fedcpsc.gatekeeper.meter import Meter, Unmetered
from fedcpsc.gatekeeper.outage import Outage
from fedcpsc.gatekeeper.owner_account import OwnerAccount
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.released import teacher_outputs
from fedcpsc.ledger.ledger import MU2_UNIT, Budget, Charge, Denied, Ledger, Reserved, Stored
from fedcpsc.logs import LogFields, fields
from fedcpsc.privacy.mechanisms import Floats
from fedcpsc.privacy.votes import GnMax
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.forms import shape_answer
from fedcpsc.protocol.messages import (
    Answer,
    AnyQuery,
    ClassReport,
    DescribeRequest,
    Description,
    EvaluationAnswer,
    EvaluationQuery,
    Query,
    RecipeQuery,
    Refusal,
    check_version,
)
from fedcpsc.protocol.recipe import CANDIDATES_PER_IMAGE
from fedcpsc.teachers.protocol import Teacher
from fedcpsc.teachers.trial import answers_to_invented

if TYPE_CHECKING:
    from fedcpsc.gatekeeper.evaluating import StudentJudge

__all__ = ["Gatekeeper"]

log = logging.getLogger("fedcpsc.gatekeeper")

_LONGEST_NAME = 200
_WITHOUT_OUTAGE = ("1.0", "1.1")  # versions of the protocol that do not know the code `out_of_service`


@dataclass(frozen=True)
class Gatekeeper:
    """Implements `QueryTarget`; several threads may call it.

    Args:
        silo: the silo's name.
        model: version of the teacher, for the ledger.
        teacher: the private classifier.
        policy: policy of the silo: what the teacher may be asked.
        ledger: open ledger of the teacher's population.
        guarantee: mechanism, caps and claim, as `guarantee_of` returns them.
        class_names: names of the teacher's classes, which the server is shown; None where they have none.
        none_class: whether the teacher's last output says "none of these classes".
        class_report: class counts that are shared; None where none are.
        teacher_version: version of the teacher, as the server may know it; None where it may not.
        owner_account: record in which the gnmax kinds note their actual privacy loss, for the owner alone.
        judge: judge of students on held-out images; None where the policy lets nobody ask for that.
        meter: counter of public quantities, see `metrics.py`.
        outage: whether the teacher failed lately, so that nothing new is charged.
    """

    silo: str
    model: str
    teacher: Teacher
    policy: Policy
    ledger: Ledger
    guarantee: Guarantee
    class_names: tuple[str, ...] | None = None
    none_class: bool = False
    class_report: ClassReport | None = None
    teacher_version: str | None = None
    owner_account: OwnerAccount | None = None
    judge: StudentJudge | None = None
    meter: Meter = field(default_factory=Unmetered, repr=False)
    outage: Outage = field(default_factory=Outage, repr=False)
    _inference: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _drawing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def images_per_query(self) -> int:
        """Most images of a query, >= 1: within the policy's number, and within its bytes."""
        return self.policy.images_of_a_query(self.teacher.image_shape)

    def describe(self, request: DescribeRequest) -> Description | Refusal:
        """The policy's public facts and what is left of the budget."""
        try:
            _check_version(request.version)
            total, left = self._totals()
            return Description(
                silo=self.silo,
                classes=self.teacher.classes,
                image_shape=self.teacher.image_shape,
                forms=self.policy.forms,
                images_per_query=self.images_per_query,
                answers_total=total,
                answers_left=left,
                claim=self.guarantee.claim,
                class_report=self.class_report,
                noise_sigma=self.guarantee.mechanism.noise_sigma,
                recipes=self.policy.recipe_queries,
                class_names=self.class_names,
                none_class=self.none_class,
                share_answers=self.policy.share_answers,
                teacher=self.teacher_version,
                evaluation=None if self.judge is None else self.judge.offer(),
            )
        except Exception as error:
            return self._refusal(error, None)

    def answer(self, query: AnyQuery) -> Answer | Refusal:
        """Answers the whole query or refuses the whole query; the same query again gets the same bytes."""
        try:
            self._validate(query)
            return self._answer(self._made(query) if isinstance(query, RecipeQuery) else query)
        except Exception as error:
            return self._refusal(error, query if isinstance(query, AnyQuery) else None)

    def evaluate(self, query: EvaluationQuery) -> EvaluationAnswer | Refusal:
        """How many held-out images a student classifies rightly; the same query again gets the same number."""
        try:
            if not isinstance(query, EvaluationQuery):
                raise Refused(RefusalCode.MALFORMED, "not a query of this kind")
            _check_asker(query)
            if self.judge is None:
                raise Refused(RefusalCode.NO_EVALUATION, "the policy has no section evaluation")
            answer = self.judge.evaluate(query)
            log.info("judged a student", extra=self._asked(query, left=answer.evaluations_left))
            return answer
        except Exception as error:
            return self._refusal(error, query if isinstance(query, EvaluationQuery) else None)

    def answers_left(self) -> int:
        """Images that the budget still holds.

        Raises:
            LedgerError: where the ledger cannot be read.
        """
        return self._totals()[1]

    def close(self) -> None:
        """Closes the ledger."""
        self.ledger.close()

    def _validate(self, query: AnyQuery) -> None:
        """Data-independent: reads the query and the policy alone."""
        if not isinstance(query, AnyQuery):
            raise Refused(RefusalCode.MALFORMED, "not a query")
        _check_asker(query)
        if query.image_shape != self.teacher.image_shape:
            raise Refused(RefusalCode.MALFORMED, f"images {query.image_shape}, not {self.teacher.image_shape}")
        if query.count > self.images_per_query:
            raise Refused(RefusalCode.TOO_MANY_IMAGES, f"{query.count} images")
        if query.form not in self.policy.forms:
            raise Refused(RefusalCode.FORM, f"form {query.form}")

    def _made(self, asked: RecipeQuery) -> Query:
        """The query whose images `asked` describes; still data-independent, and nothing is charged yet."""
        if not self.policy.recipe_queries:
            raise Refused(RefusalCode.RECIPE, "the policy takes no recipes")
        if asked.recipe.candidates > CANDIDATES_PER_IMAGE * self.images_per_query:
            raise Refused(RefusalCode.RECIPE, f"{asked.recipe.candidates} candidates")
        from fedcpsc.recipes.drawing import draw_images  # noqa: PLC0415 - torch, for whom it is not needed

        try:
            with self._drawing:
                images = draw_images(asked.recipe)
        except (FedcpscError, RuntimeError) as error:  # what it says may quote the asker
            raise Refused(RefusalCode.RECIPE, f"no images come of it ({type(error).__name__})") from error
        query = Query(asked.query_id, asked.form, images, asked.run, asked.principal, asked.version)
        if query.payload_hash != asked.payload:
            raise Refused(RefusalCode.RECIPE, "other images come of it here")
        return query

    def _answer(self, query: Query) -> Answer:
        found = self.ledger.recall(
            query.query_id,
            query.payload_hash,
            self._charge(len(query.images)),
            principal=query.principal,
            limit=self._limit(),
        )
        if found is None or isinstance(found, Reserved):
            with self._inference:
                if found is None:
                    found = self._reserve(query)
                if isinstance(found, Reserved):
                    scores = self._scores(query)
        if isinstance(found, Reserved):
            return self._store(query, scores, self._affordable(found.left))
        if isinstance(found, Stored):
            log.info("sent a stored reply again", extra=self._asked(query))
            self.meter.replayed()
            return _decoded(found.reply)
        raise Refused(RefusalCode.REPLAY if found.conflict else RefusalCode.BUDGET)

    def _reserve(self, query: Query) -> Reserved | Stored | Denied:
        """Charges a query that never came before, unless the teacher is out of service."""
        self.outage.check(lambda: answers_to_invented(self.teacher, self.teacher.image_shape, query.count))
        with self._timed():
            return self.ledger.reserve(
                query.query_id,
                query.payload_hash,
                self._charge(len(query.images)),
                principal=query.principal,
                run=query.run,
                limit=self._limit(),
            )

    def _store(self, query: Query, scores: Floats, left: int) -> Answer:
        values, indices = shape_answer(scores, query.form, bits=self.policy.bits, top_k=self.policy.top_k)
        answer = Answer(
            query_id=query.query_id,
            form=query.form,
            classes=self.teacher.classes,
            values=values,
            indices=indices,
            answers_left=left,
            claim=self.guarantee.claim,
        )
        mine = to_bytes(answer)
        with self._timed():
            sent = self.ledger.store(query.query_id, mine, principal=query.principal, model=self.model)
        self.meter.answered(len(query.images))
        log.info("answered a query", extra=self._asked(query, left=left))
        return answer if sent == mine else _decoded(sent)

    def _scores(self, query: Query) -> Floats:
        mechanism = self.guarantee.mechanism
        try:
            outputs = teacher_outputs(mechanism, self.teacher, query.images)
            scores = mechanism.release(outputs)
        except Exception:
            self.outage.failed()
            raise
        self.outage.worked()
        if self.owner_account and isinstance(mechanism, GnMax):
            self.owner_account.add(query.query_id, len(scores), mechanism.realised(outputs, scores))
        return scores

    def _charge(self, answers: int) -> Charge:
        mechanism = self.guarantee.mechanism
        return Charge(
            answers=answers,
            mu2=math.ceil(mechanism.cost() * answers * MU2_UNIT),
            private=mechanism.dp,
            mechanism=mechanism.describe(),
            model=self.model,
            sensitivity=mechanism.sensitivity,
            sigma=mechanism.sigma,
        )

    def _refusal(self, error: Exception, query: AnyQuery | EvaluationQuery | None) -> Refusal:
        code = error.code if isinstance(error, Refused) else RefusalCode.INTERNAL
        if isinstance(error, Refused):
            log.warning("refused a query", extra=self._asked(query, code=code.value, note=str(error)))
        elif isinstance(error, SiloError):
            log.error("could not answer a query", extra=self._asked(query, code=code.value, note=str(error)))
        else:  # where it happened, not what it says: a foreign message may quote data
            where = "".join(traceback.format_tb(error.__traceback__))
            shown = self._asked(query, code=code.value, note=type(error).__name__, where=where)
            log.error("could not answer a query", extra=shown)
        if code is RefusalCode.OUT_OF_SERVICE and query and query.version in _WITHOUT_OUTAGE:
            code = RefusalCode.INTERNAL  # which makes an older server ask again, too
        return Refusal(code, query.query_id if query else "")

    def _asked(self, query: AnyQuery | EvaluationQuery | None, **more: object) -> LogFields:
        """Who asked for how much, as fields of the log."""
        if query is None:
            return fields(silo=self.silo, **more)
        run = query.run if _is_name(query.run) else None
        if not isinstance(query, EvaluationQuery):  # which brings a student, and no image
            more["images"] = query.count
        return fields(silo=self.silo, run=run, query_id=query.query_id, **more)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.meter.wrote_ledger(time.monotonic() - begun)

    def _totals(self) -> tuple[int, int]:
        status, limit = self.ledger.status(), self._limit()
        cap = Budget(min(limit.answers, status.budget.answers), min(limit.mu2, status.budget.mu2))
        left = Budget(cap.answers - status.spent.answers, cap.mu2 - status.spent.mu2)
        return self._affordable(cap), max(0, self._affordable(left))

    def _limit(self) -> Budget:
        """The caps on answers: those of all that is released, without the noise set aside for evaluations."""
        limit = self.guarantee.limit
        if self.judge is None or not self.guarantee.mechanism.cost():
            return limit
        within = min(limit.mu2, self.ledger.status().budget.mu2)
        return Budget(limit.answers, max(0, within - self.judge.set_aside()))

    def _affordable(self, budget: Budget) -> int:
        """Answers that both parts of a budget hold."""
        each = self.guarantee.mechanism.cost() * MU2_UNIT
        return min(budget.answers, int(budget.mu2 / each)) if each else budget.answers


def _is_name(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and name.isprintable()


def _check_asker(query: AnyQuery | EvaluationQuery) -> None:
    _check_version(query.version)
    for name in (query.run, query.principal):
        if not _is_name(name):
            raise Refused(RefusalCode.MALFORMED, "run or principal is not printable text of at most 200 characters")


def _check_version(version: object) -> None:
    try:
        check_version(str(version))
    except ProtocolError as error:
        raise Refused(RefusalCode.VERSION, str(error)) from error


def _decoded(reply: bytes) -> Answer:
    message = from_bytes(reply)
    if not isinstance(message, Answer):
        raise SiloError("the stored reply is not an answer")
    return message
