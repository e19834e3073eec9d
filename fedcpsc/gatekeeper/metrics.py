# SPDX-License-Identifier: Apache-2.0
"""A gatekeeper's counters for Prometheus: public quantities only, off by default.

Each exported number is a function of what the asker sent and was answered, or of the clock:

| metric (`fedcpsc_gatekeeper_...`) | why it shows nothing of the private data |
|---|---|
| `up` | constant |
| `answers_total`, `answers_left` | images asked and answered; each answer shows the asker `answers_left` anyway |
| `replies_total{kind}`, `refusals_total{code}`, `replays_total` | what was sent, without its content |
| `reply_seconds`, `ledger_write_seconds` | time: see below |

A refusal is data-independent but for `internal` and `out_of_service`: a teacher that fails on some image says so to the
asker, and here.
Time is the other thing that a teacher could make depend on its data (a Python teacher may take what time it likes, and
replies are not equalised). The asker knows both without this page. Whoever reads the metrics instead learns of time
only into which of a few coarse classes a reply fell: a histogram's `_sum` would give exact seconds away, so what is
observed is the upper bound of the class. The process's CPU time and memory, which the Prometheus client exports by
default, are left out for the same reason.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app

from fedcpsc.errors import LedgerError, RefusalCode
from fedcpsc.gatekeeper.listening import bound_address, bounded_protocol
from fedcpsc.logs import fields
from fedcpsc.protocol.messages import Answer, Description, EvaluationAnswer, Message, Refusal

__all__ = ["LEDGER_SECONDS", "REPLY_SECONDS", "PrometheusMeter", "serving_metrics"]

log = logging.getLogger("fedcpsc.gatekeeper")

REPLY_SECONDS = (0.1, 1.0, 10.0, 60.0)
LEDGER_SECONDS = (0.1, 1.0, 10.0)
_PREFIX = "fedcpsc_gatekeeper_"
_KINDS: dict[type[Message], str] = {
    Answer: "answer",
    Description: "description",
    EvaluationAnswer: "evaluation",
    Refusal: "refusal",
}
_CONNECTIONS = 8
_TIMEOUT_S = 10.0


class PrometheusMeter:
    """Implements `Meter`.

    Args:
        answers_left: images that the budget still holds; called when the metrics are read.

    Attributes:
        registry: what Prometheus is shown.
    """

    def __init__(self, answers_left: Callable[[], int]) -> None:
        self.registry = own = CollectorRegistry()
        Gauge(_PREFIX + "up", "1 while the gatekeeper runs.", registry=own).set(1)
        self._answers = Counter(_PREFIX + "answers", "Images answered and charged since the start.", registry=own)
        left = Gauge(_PREFIX + "answers_left", "Images that the budget still holds; NaN: unreadable.", registry=own)
        left.set_function(lambda: _left(answers_left))
        self._replies = Counter(_PREFIX + "replies", "Replies by kind.", ["kind"], registry=own)
        for kind in _KINDS.values():
            self._replies.labels(kind)  # shown as 0 from the start
        self._refusals = Counter(_PREFIX + "refusals", "Refusals by code.", ["code"], registry=own)
        for code in RefusalCode:
            self._refusals.labels(code.value)
        self._replays = Counter(_PREFIX + "replays", "Stored replies sent again, uncharged.", registry=own)
        self._reply_s = Histogram(
            _PREFIX + "reply_seconds", "Request to reply, in coarse classes.", registry=own, buckets=REPLY_SECONDS
        )
        self._ledger_s = Histogram(
            _PREFIX + "ledger_write_seconds",
            "Writing the ledger, in coarse classes.",
            registry=own,
            buckets=LEDGER_SECONDS,
        )

    def replied(self, reply: Message, seconds: float) -> None:
        """See `Meter`."""
        self._replies.labels(_KINDS[type(reply)]).inc()
        self._reply_s.observe(_class_of(seconds, REPLY_SECONDS))
        if isinstance(reply, Refusal):
            self._refusals.labels(reply.code.value).inc()

    def answered(self, images: int) -> None:
        """See `Meter`."""
        self._answers.inc(images)

    def replayed(self) -> None:
        """See `Meter`."""
        self._replays.inc()

    def wrote_ledger(self, seconds: float) -> None:
        """See `Meter`."""
        self._ledger_s.observe(_class_of(seconds, LEDGER_SECONDS))


@contextlib.contextmanager
def serving_metrics(meter: PrometheusMeter, address: str, group: str | None = None) -> Iterator[None]:
    """Shows the metrics at `address` while the block runs, from a thread of its own.

    Args:
        address: address as `bound_address` takes it.
        group: group whose members may read too, where the address is a socket's path.

    Raises:
        ConfigError, SiloError: as `bound_address`.
    """
    with bound_address(address, group) as listening:
        config = uvicorn.Config(
            make_asgi_app(meter.registry, disable_compression=True),
            http=bounded_protocol(_TIMEOUT_S, _CONNECTIONS),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="fedcpsc-metrics", daemon=True)
        thread.start()
        log.info("metrics can be read", extra=fields(note=address))
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(_TIMEOUT_S)


def _seconds(name: str, meaning: str, bounds: tuple[float, ...], registry: CollectorRegistry) -> Histogram:
    return Histogram(_PREFIX + name, meaning, registry=registry, buckets=bounds)


def _class_of(seconds: float, bounds: tuple[float, ...]) -> float:
    return next((bound for bound in bounds if seconds <= bound), 2 * bounds[-1])


def _left(answers_left: Callable[[], int]) -> float:
    try:
        return answers_left()
    except LedgerError:
        return math.nan
