# SPDX-License-Identifier: Apache-2.0
"""A teacher that failed is asked nothing new, so that no further query is charged that it may not answer.

    in service -> the teacher fails on a charged query -> out of service -> it answers a query -> in service

| while out of service | what happens |
|---|---|
| a query that was charged before comes again | the teacher is asked, nothing is charged |
| a query that never came before | refused (`out_of_service`), nothing is charged |
| a new query, after a pause without a failure | the teacher is tried on invented images; if it passes, one is charged |

The pause is a minute, and twice as long after each such query that fails too, up to an hour. A server asks a query that
failed again within seconds, so that while it does, nothing else of it is charged. A restart ends an outage as well: a
gatekeeper that serves has tried its teacher first.

What the code says: `out_of_service` follows from an `internal` before it, and tells whoever asks that the teacher
failed on a query that was charged, perhaps another's; never on which image, or how. Like `internal` it can depend on
the private data, through a teacher that fails on some images and not on others: under a mechanism that adds noise a
failing teacher abstains instead, and neither code comes of it. The trial itself depends on no query.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedcpsc.errors import RefusalCode, Refused, TeacherError

__all__ = ["Outage"]

_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 3600.0


class Outage:
    """Whether a teacher may be asked what has to be charged first. Several threads may call it.

    Args:
        clock: source of seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pause_s = _PAUSE_S
        self._failed_s: float | None = None  # time of the last failure since the last answer
        self._on_trial = False

    @property
    def lasts(self) -> bool:
        """Whether the teacher's last answer is older than its last failure."""
        return self._failed_s is not None

    def check(self, trial: Callable[[], object]) -> None:
        """Does nothing where a new query may be charged.

        Args:
            trial: function that tries the teacher on invented images.

        Raises:
            Refused: with the code `out_of_service`.
        """
        with self._lock:
            if self._failed_s is None:
                return
            if self._clock() - self._failed_s < self._pause_s:
                raise Refused(RefusalCode.OUT_OF_SERVICE, "the teacher failed, and has answered nothing since")
            try:
                trial()
            except TeacherError as error:
                self._failed_s = self._clock()
                raise Refused(RefusalCode.OUT_OF_SERVICE, f"the teacher fails on invented images: {error}") from error
            self._on_trial = True

    def failed(self) -> None:
        """Notes that the teacher failed on a charged query."""
        with self._lock:
            if self._on_trial:
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._failed_s, self._on_trial = self._clock(), False

    def worked(self) -> None:
        """Notes that the teacher answered a query."""
        with self._lock:
            self._failed_s, self._pause_s, self._on_trial = None, _PAUSE_S, False
