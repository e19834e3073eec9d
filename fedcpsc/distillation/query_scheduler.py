# SPDX-License-Identifier: Apache-2.0
"""Decides which query is sent to which silo when, and stores the answers in the bank.

As many queries are in flight at a silo at once as the configuration allows; a silo that says it is busy gets fewer. A
query keeps its id for ever, so one that was lost, or was in flight when the server died, is sent again: the
silo's ledger returns the stored reply without a charge. A silo that fails, or cannot be reached, may need minutes
to recover: it is asked again, after longer and longer pauses.

Each silo is asked in queries of its own size: a batch is cut into parts that it takes (`parts.py`). One that missed a
deadline is not waited for again, where the others are enough, until it has answered a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from fedcpsc.distillation.claims import fault_of_answer
from fedcpsc.distillation.denoising import read_answer
from fedcpsc.distillation.held_answers import HeldAnswers
from fedcpsc.distillation.parts import Part
from fedcpsc.distillation.silo_state import Sent, SiloState
from fedcpsc.distillation.transport import Lost, Reply, SiloId, SiloTransport, Unreadable
from fedcpsc.errors import RefusalCode
from fedcpsc.logs import fields
from fedcpsc.protocol.messages import Answer, AnyQuery, EvaluationAnswer, Query, RecipeQuery, Refusal
from fedcpsc.protocol.recipe import CANDIDATES_PER_IMAGE, Recipe
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_journal import Batch
from fedcpsc.runs.metrics import describe_stop
from fedcpsc.runs.timeline import WAITING, Timeline

__all__ = ["QueryScheduler"]

log = logging.getLogger("fedcpsc.server")

_PATIENCE_S = 240.0  # a query that failed for so long, and _LEAST_TRIES times, costs its silo the rest of the run
_LEAST_TRIES = 4
_LONGEST_REST_S = 20.0  # before a query that failed is sent again: at once, then after 1, 2, 4, ... s
_MOST_REFUSALS = 3  # in a row, then the silo is left alone
_LOOK_S = 0.2  # between two looks at the clock while waiting
# the silo or its teacher failed: the same query, under its id, is answered later, and charged once at most
_NOT_NOW = frozenset({RefusalCode.INTERNAL, RefusalCode.OUT_OF_SERVICE})
# refusals that may mean the recipe and not its images: those are asked about then
_OF_RECIPES = frozenset({RefusalCode.RECIPE, RefusalCode.MALFORMED, RefusalCode.TOO_MANY_IMAGES})


class QueryScheduler:
    """Asks every silo about every batch, and stores the answers in the bank.

    Args:
        transport: transport to the silos, already connected.
        silos: state of each silo of the bank, by its name.
        bank: answer bank that answers are stored in.
        run: name of the run, which the silos are shown.
        tell: function called with one line for each event an operator should know.
        timeline: clock of the run, which also records every query and all waiting.

    Attributes:
        silos: state of each silo, by its name.
        images_per_batch: most images of a batch, >= 1: those of the largest query that a silo takes.
    """

    def __init__(
        self,
        transport: SiloTransport,
        silos: dict[SiloId, SiloState],
        bank: AnswerBank,
        run: str,
        tell: Callable[[str], None],
        timeline: Timeline,
    ) -> None:
        self._transport = transport
        self._bank = bank
        self._held = HeldAnswers(bank)
        self._run = run
        self._tell = tell
        self._timeline = timeline
        self._given_up = 0  # answers to rounds before this one are late
        self._recipes: dict[str, Recipe] = {}  # by query id; after a crash the images are asked about instead
        self.silos = silos
        asked = [state for state in silos.values() if not state.departed] or list(silos.values())
        self.images_per_batch = max(state.size for state in asked)
        self._expected = len(asked)

    @property
    def active(self) -> list[SiloId]:
        """Silos that still answer."""
        return [silo for silo, state in self.silos.items() if not state.left]

    @property
    def missed(self) -> list[SiloId]:
        """Silos that missed a deadline and have answered no batch since."""
        return [silo for silo, state in self.silos.items() if state.missed]

    def expect_nothing_of(self, silos: Collection[SiloId]) -> None:
        """Does not wait for these silos, where the others are enough, until they have answered a batch.

        Args:
            silos: silos that missed a deadline in an earlier attempt at the run; those that have not joined are passed
                over.
        """
        for silo in silos:
            if silo in self.silos:
                self.silos[silo].missed = True

    def ask(self, batches: list[Batch], recipes: Mapping[str, Recipe] | None = None) -> None:
        """Queues batches at every active silo that has not answered them, and sends what can be sent.

        Args:
            batches: batches to ask about.
            recipes: recipes that batches' images are made from, by query id; silos that take recipes are sent those,
                where they are smaller than the images.
        """
        self._recipes |= recipes or {}
        for silo, state in self.silos.items():
            if not state.left:
                for batch in batches:
                    state.waiting.extend(state.parts(batch, silo))
        self._send()

    def process_replies(self, timeout_s: float = 0.0) -> None:
        """Banks what has arrived (waiting at most `timeout_s` for something) and sends what can be sent."""
        for reply in self._transport.receive(timeout_s):
            self._handle(reply)
        self._send()

    def wait_for_round(self, before: int, deadline_s: float, quorum: float) -> None:
        """Waits for the answers to all rounds before `before`; later ones may come meanwhile.

        It waits until all have answered; after `deadline_s`, until a share `quorum` has, or none owes more. Silos that
        missed a deadline and have answered no batch since are not waited for where that share has answered.
        """
        with self._timeline.span(WAITING, before):
            begun = self._timeline.now
            while owing := [silo for silo, state in self.silos.items() if state.owes(before)]:
                answered = sum(silo not in owing for silo in self.active)
                enough = answered >= quorum * self._expected
                late = self._timeline.now - begun > deadline_s
                if enough and (late or all(self.silos[silo].missed for silo in owing)):
                    self._go_on_without(owing, deadline_s)
                    break
                if late:
                    for silo in owing:
                        self.leave(silo, f"no answer within {deadline_s:g} s")
                    continue
                self.process_replies(_LOOK_S)
            self._held.store()
        self._given_up = max(self._given_up, before)

    def seconds_a_query(self) -> list[tuple[float, int]]:
        """Seconds that each silo that still answers has lately needed for a query, and the most images of its query."""
        return [(state.seconds_a_query, state.size) for state in self.silos.values() if not state.left]

    def leave(self, silo: SiloId, why: str) -> None:
        """Asks a silo nothing more; what it has answered stays.

        Args:
            silo: name of the silo.
            why: reason, which is told and recorded.
        """
        state = self.silos[silo]
        self._held.store(silo)
        state.left = why
        state.waiting.clear()
        log.warning("a silo is no longer asked", extra=fields(run=self._run, silo=silo, note=why))
        self._tell(describe_stop(silo, why))

    def close(self) -> None:
        """Puts on record what never came."""
        for silo, state in self.silos.items():
            for sent in state.in_flight.values():
                self._record(silo, sent, "no reply")
            state.in_flight.clear()

    def _go_on_without(self, silos: list[SiloId], deadline_s: float) -> None:
        for silo in silos:
            state = self.silos[silo]
            if not state.missed:
                state.missed = True
                self._tell(f"{silo} is not waited for until it replies: no answer within {deadline_s:g} s")

    def _send(self) -> None:
        while True:
            outgoing: dict[SiloId, AnyQuery] = {}
            for silo, state in self.silos.items():
                if state.left or len(state.in_flight) >= state.limit or not state.waiting:
                    continue
                if self._timeline.now < state.retry_at_s:
                    continue
                part = state.waiting.popleft()
                query = self._question(part, state)
                state.in_flight[part.query_id] = Sent(part, self._timeline.now, isinstance(query, RecipeQuery))
                outgoing[silo] = query
                log.info("asked a silo", extra=self._about(silo, part))
            if not outgoing:
                return
            self._transport.send(outgoing)

    def _question(self, part: Part, state: SiloState) -> AnyQuery:
        query = Query(part.query_id, state.form, self._bank.images[part.rows], run=self._run)
        recipe = self._recipes.get(part.batch.query_id) if state.recipes else None
        if recipe is not None and not part.is_whole:
            first = part.batch.first
            recipe = recipe.part(part.rows.start - first, part.rows.stop - first)
        if recipe is None or recipe.nbytes >= query.images.nbytes:
            return query
        if recipe.candidates > CANDIDATES_PER_IMAGE * state.description.images_per_query:  # it would refuse
            return query
        return RecipeQuery(query.query_id, query.form, query.payload_hash, recipe, run=self._run)

    def _handle(self, reply: Reply) -> None:
        state = self.silos.get(reply.silo)
        content = reply.content
        if state is None or isinstance(content, EvaluationAnswer):  # nobody has asked for one yet
            return
        sent = state.in_flight.pop(content.query_id, None)
        if sent is None and (batch := self._bank.batch_of(content.query_id)):
            sent = Sent(Part(batch.query_id, batch, batch.rows), self._timeline.now, by_recipe=False)
        if sent is None and state.in_flight:  # a refusal that could not say of what: of what was asked first
            sent = state.in_flight.pop(next(iter(state.in_flight)))
        if sent is None:
            return
        if isinstance(content, Answer):
            self._take_answer(reply, state, content, sent)
        elif isinstance(content, Unreadable):
            self._record(reply.silo, sent, "not what was asked")
            self.leave(reply.silo, content.reason)
        elif isinstance(content, Lost):
            self._record(reply.silo, sent, "lost")
            self._retry(reply.silo, state, sent.part, content.reason)
        else:
            self._record(reply.silo, sent, f"refused ({content.code.value})")
            self._refused(reply.silo, state, sent, content)
        state.heard_s = self._timeline.now

    def _take_answer(self, reply: Reply, state: SiloState, answer: Answer, sent: Sent) -> None:
        part = sent.part
        fault = fault_of_answer(answer, state.description, part.count, state.form)
        if fault is not None:
            self._record(reply.silo, sent, "not what was asked")
            self.leave(reply.silo, fault)
            return
        self._record(reply.silo, sent, "late answer" if part.round < self._given_up else "answer")
        self._held.add(reply.silo, part, read_answer(answer, state.noise))
        if reply.silo in part.batch.answered:
            state.missed = False
        if part.batch.answered.issuperset(self.active):
            self._recipes.pop(part.batch.query_id, None)
        state.answers_left = answer.answers_left
        state.refused_in_a_row = 0
        state.seconds.append(reply.seconds)
        state.needed.append(self._timeline.now - max(sent.asked_s, state.heard_s))
        more = {"left": answer.answers_left, "seconds": round(reply.seconds, 3)}
        log.info("took a silo's answers", extra=self._about(reply.silo, part, **more))

    def _retry(self, silo: SiloId, state: SiloState, part: Part, reason: str) -> None:
        log.warning("a query came back unanswered", extra=self._about(silo, part, note=reason))
        now = self._timeline.now
        state.tries[part.query_id] += 1
        tries = state.tries[part.query_id]
        first = state.failing_s.setdefault(part.query_id, now)
        if tries >= _LEAST_TRIES and now - first > _PATIENCE_S:
            self.leave(silo, f"{reason}, {tries} times")
            return
        if tries > 1:
            state.retry_at_s = now + min(2.0 ** (tries - 2), _LONGEST_REST_S)
        state.waiting.appendleft(part)

    def _refused(self, silo: SiloId, state: SiloState, sent: Sent, refusal: Refusal) -> None:
        part = sent.part
        log.warning("a silo refused a query", extra=self._about(silo, part, code=refusal.code.value))
        state.refusals[refusal.code.value] += 1
        if refusal.code is RefusalCode.BUSY:
            state.limit = max(1, state.limit - 1)
            self._retry(silo, state, part, "busy")
            return
        if refusal.code in _NOT_NOW:  # for one, nobody serves the silo just now; paid or not, ask again
            self._retry(silo, state, part, f"refused ({refusal.code.value})")
            return
        if sent.by_recipe and refusal.code in _OF_RECIPES:  # nothing was charged
            if state.recipes:
                self._tell(f"{silo} is asked with images from now on: it refused a recipe ({refusal.code.value})")
            state.recipes = False
            state.waiting.appendleft(part)
            return
        state.refused_in_a_row += 1
        if refusal.code is RefusalCode.BUDGET:
            self.leave(silo, "its budget is spent")
        elif state.refused_in_a_row >= _MOST_REFUSALS:
            self.leave(silo, f"refused {_MOST_REFUSALS} times in a row ({refusal.code.value})")

    def _record(self, silo: SiloId, sent: Sent, outcome: str) -> None:
        self._timeline.query(silo, sent.part.round + 1, sent.part.count, sent.asked_s, outcome)

    def _about(self, silo: SiloId, part: Part, **more: str | float) -> Mapping[str, object]:
        """One query at one silo, as fields of the log."""
        return fields(run=self._run, round=part.round + 1, silo=silo, query_id=part.query_id, images=part.count, **more)
