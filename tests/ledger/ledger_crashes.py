# SPDX-License-Identifier: Apache-2.0
"""Processes that use one ledger two at a time and die by SIGKILL: at each SQL statement in turn, and at random moments.

    python ledger_crashes.py FOLDER ROUNDS

Forks from a small single-threaded process. Raises, and so exits with 1, where a promise of the ledger is broken.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from fedcpsc.ledger.ledger import Charge, Ledger, Reserved, Stored

DATA, BUDGET, NAMES, ROUNDS_PER_LEDGER, FAILED = "ds", 60, 24, 25, 3


def worker(path: Path, mark: Path | None, die_at: int | None, seed: int, out: int) -> None:
    """Asks at random and reports every reply that leaves; dies before the statement `die_at`."""
    order = random.Random(seed)
    ledger = Ledger.open(path, DATA, high_water_mark=mark)
    done = 0

    def count(statement: str) -> None:
        nonlocal done
        done += 1
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if die_at is not None:
        ledger._db.set_trace_callback(count)
    for _ in range(8):
        name = f"q{order.randrange(NAMES)}"
        found = ledger.reserve(name, "payload", Charge(5))
        reply = b""
        if isinstance(found, Reserved):
            reply = ledger.store(name, os.urandom(6).hex().encode())  # never the same twice: fresh noise
        elif isinstance(found, Stored):
            reply = found.reply
        if reply:
            os.write(out, f"{name} {reply.decode()}\n".encode())  # it has left


def crash(path: Path, mark: Path | None, points: list[int | None], seed: int) -> list[str]:
    """Two processes at once; what left them before both were dead."""
    read, write = os.pipe()
    children = []
    for point in points:
        child = os.fork()
        if child == 0:
            status = FAILED
            try:
                os.close(read)
                worker(path, mark, point, seed, write)  # both ask alike: they race
                status = 0
            finally:
                os._exit(status)
        children.append((child, point))
    os.close(write)
    for child, point in children:
        if point is None:
            time.sleep(random.Random(seed).uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
    with os.fdopen(read) as lines:
        left = lines.read().split("\n")
    for child, _ in children:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), "an error, not a death"
    return [line for line in left if line.count(" ") == 1]


def main(folder: Path, rounds: int) -> None:
    """Checks after every crash."""
    killed = 0
    for first in range(0, rounds, ROUNDS_PER_LEDGER):
        path, mark = folder / f"{first}.sqlite", folder / f"{first}.mark" if first % 2 else None
        Ledger.create(path, DATA, BUDGET, high_water_mark=mark).close()
        sent: dict[str, str] = {}
        spent = 0
        for number in range(first, min(rounds, first + ROUNDS_PER_LEDGER)):
            points = [None if number % 3 == 0 else 1 + number % 67, 1 + (number * 7) % 71]
            for line in crash(path, mark, points, number):
                name, reply = line.split(" ")
                assert sent.setdefault(name, reply) == reply, f"two replies to {name}"
            killed += len(points)
            ledger = Ledger.open(path, DATA, high_water_mark=mark)
            status = ledger.verify()
            assert spent <= status.spent.answers <= BUDGET, "spent fell, or passed the budget"
            spent = status.spent.answers
            rows = list(ledger.export())
            charged = {row["query_id"] for row in rows if row["kind"] == "charged"}
            assert set(sent) <= charged, "an answer without its charge"
            assert len(charged) * 5 == spent, "a query charged twice"
            for name, reply in sent.items():
                assert ledger.reserve(name, "payload", Charge(5)) == Stored(reply.encode()), "another reply"
            ledger.close()
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
