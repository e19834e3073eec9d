"""The correspondence with the silos: who still owes what, who is gone, what came back into the bank.

At most one query per silo is in flight. A query keeps its id for ever, so one that was lost, or was in flight when the
server died, is simply sent again: the silo's ledger returns the reply it stored, uncharged.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedcpsc.distillation.answer_bank import AnswerBank, Batch
from fedcpsc.distillation.denoising import read_answer
from fedcpsc.distillation.teachers import Lost, Reply, SiloId, Teachers
from fedcpsc.errors import RefusalCode
from fedcpsc.logs import fields
from fedcpsc.protocol.messages import Answer, AnswerForm, Description, Query, Refusal

__all__ = ["Asking", "SiloState"]

log = logging.getLogger("fedcpsc.server")

_MOST_TRIES = 4  # of one query at one silo, lost replies and busy signs together
_MOST_REFUSALS = 3  # in a row, then the silo is left alone


@dataclass
class SiloState:
    """What the server knows of one silo during a run.

    Attributes:
        form: the answer form it is asked for.
        noise: standard deviation of the noise that its answers are freed of; 0 reads them as they are.
        waiting: queries still to be sent.
        in_flight: the query it is working on.
        left: why it is no longer asked; empty while it is.
        refusals: how often it refused, by code.
        seconds: round-trip time of each answer.
    """

    description: Description
    form: AnswerForm
    noise: float
    waiting: deque[Batch] = field(default_factory=deque)
    in_flight: Batch | None = None
    left: str = ""
    answers_left: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    refused_in_a_row: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether it still owes an answer."""
        return not self.left and (self.in_flight is not None or bool(self.waiting))


class Asking:
    """Asks every silo about every batch, and banks what comes.

    Args:
        teachers: the transport, after its `hello`.
        descriptions: the silos that joined.
        bank: where answers go.
        forms: the answer form to ask each silo for.
        denoise: whether noise that silos tell of is accounted for.
        run: the run's name, told to the silos.
        tell: called with one line for each event an operator should know.
    """

    def __init__(
        self,
        teachers: Teachers,
        descriptions: Mapping[SiloId, Description],
        bank: AnswerBank,
        forms: Mapping[SiloId, AnswerForm],
        denoise: bool,
        run: str,
        tell: Callable[[str], None],
    ) -> None:
        self._teachers = teachers
        self._bank = bank
        self._run = run
        self._tell = tell
        self.silos = {
            s: SiloState(d, forms[s], d.noise_sigma if denoise else 0.0, answers_left=d.answers_left)
            for s, d in descriptions.items()
        }
        self.waited_s = 0.0

    @property
    def active(self) -> list[SiloId]:
        """Silos that still answer."""
        return [silo for silo, state in self.silos.items() if not state.left]

    def ask(self, batches: list[Batch]) -> None:
        """Queues batches at every active silo that has not answered them, and sends what can be sent."""
        for silo, state in self.silos.items():
            if not state.left:
                state.waiting.extend(batch for batch in batches if silo not in batch.answered)
        self._send()

    def pump(self, timeout_s: float = 0.0) -> None:
        """Banks what has arrived (waiting at most `timeout_s` for something) and sends what can be sent."""
        for reply in self._teachers.poll(timeout_s):
            self._take(reply)
        self._send()

    def wait(self, deadline_s: float, quorum: float) -> None:
        """Until all have answered; after `deadline_s`, until a share `quorum` of the silos has, or nobody owes more."""
        begun = time.monotonic()
        while any(state.busy for state in self.silos.values()):
            done = sum(not state.busy for state in self.silos.values() if not state.left)
            late = time.monotonic() - begun > deadline_s
            if late and done >= quorum * len(self.silos):
                break
            if late:
                self._give_up_on_the_slowest(deadline_s)
                continue
            self.pump(0.2)
        self.waited_s += time.monotonic() - begun

    def _give_up_on_the_slowest(self, deadline_s: float) -> None:
        for silo, state in self.silos.items():
            if state.busy:
                self._leave(silo, f"no answer within {deadline_s:g} s")

    def _send(self) -> None:
        outgoing: dict[SiloId, Query] = {}
        for silo, state in self.silos.items():
            if state.left or state.in_flight is not None or not state.waiting:
                continue
            batch = state.in_flight = state.waiting.popleft()
            outgoing[silo] = Query(batch.query_id, state.form, self._bank.images[batch.rows], run=self._run)
            log.info("asked a silo", extra=self._about(silo, batch))
        if outgoing:
            self._teachers.push(outgoing)

    def _take(self, reply: Reply) -> None:
        state = self.silos.get(reply.silo)
        if state is None:
            return
        content = reply.content
        batch = self._bank.batch_of(content.query_id) or state.in_flight
        if state.in_flight is not None and batch is state.in_flight:
            state.in_flight = None
        if batch is None:
            return
        if isinstance(content, Answer):
            self._bank_answer(reply, state, content, batch)
        elif isinstance(content, Lost):
            self._again(reply.silo, state, batch, content.reason)
        else:
            self._refused(reply.silo, state, batch, content)

    def _bank_answer(self, reply: Reply, state: SiloState, answer: Answer, batch: Batch) -> None:
        if answer.count != batch.count or answer.classes != self._bank.classes or answer.form is not state.form:
            self._leave(
                reply.silo, f"answered {answer.count} x {answer.classes} {answer.form.value}, not what was asked"
            )
            return
        self._bank.add_answers(batch.query_id, reply.silo, read_answer(answer, state.noise))
        state.answers_left = answer.answers_left
        state.refused_in_a_row = 0
        state.seconds.append(reply.seconds)
        told = self._about(reply.silo, batch, left=answer.answers_left, seconds=round(reply.seconds, 3))
        log.info("banked a silo's answers", extra=told)

    def _again(self, silo: SiloId, state: SiloState, batch: Batch, reason: str) -> None:
        log.warning("a query came back unanswered", extra=self._about(silo, batch, note=reason))
        state.tries[batch.query_id] += 1
        if state.tries[batch.query_id] < _MOST_TRIES:
            state.waiting.appendleft(batch)
        else:
            self._leave(silo, f"{reason}, {_MOST_TRIES} times")

    def _refused(self, silo: SiloId, state: SiloState, batch: Batch, refusal: Refusal) -> None:
        log.warning("a silo refused a query", extra=self._about(silo, batch, code=refusal.code.value))
        state.refusals[refusal.code.value] += 1
        if refusal.code is RefusalCode.BUSY:
            self._again(silo, state, batch, "busy")
            return
        state.refused_in_a_row += 1
        if refusal.code is RefusalCode.BUDGET:
            self._leave(silo, "its budget is spent")
        elif state.refused_in_a_row >= _MOST_REFUSALS:
            self._leave(silo, f"refused {_MOST_REFUSALS} times in a row ({refusal.code.value})")

    def _leave(self, silo: SiloId, why: str) -> None:
        state = self.silos[silo]
        state.left = why
        state.waiting.clear()
        log.warning("a silo is no longer asked", extra=fields(run=self._run, silo=silo, note=why))
        self._tell(f"{silo} is no longer asked: {why}")

    def _about(self, silo: SiloId, batch: Batch, **more: Any) -> dict[str, Any]:
        """One query at one silo, as fields of the log."""
        where = {"run": self._run, "round": batch.round + 1, "silo": silo}
        return fields(**where, query_id=batch.query_id, images=batch.count, **more)
