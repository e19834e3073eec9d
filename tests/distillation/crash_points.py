# SPDX-License-Identifier: Apache-2.0
"""Runs that die by SIGKILL at chosen points and are resumed: ledgers, bank and student beside those of one left alone.

    python crash_points.py FOLDER

Real gatekeepers and ledgers, called in the server's process: both die at once, the worst that can happen. One silo
takes whole batches, the other parts of them. A point is a moment before or after something is made to last. Forks from
a process that has torch loaded but computed nothing, and raises, so exits with 1, where a promise is broken.
"""

import collections
import json
import os
import random
import signal
import sys
from pathlib import Path

import torch
import torch._dynamo  # takes seconds, which each process would spend at its first optimiser
from safetensors.torch import load_file
from support.silo_folder import make_folder
from support.tiny_runs import tiny_config

import fedcpsc.distillation.ending
import fedcpsc.distillation.held_answers
from fedcpsc.distillation.parts import parts_of
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_journal import Batch, replay
from fedcpsc.teachers.manifest import load_manifest

CONFIG = tiny_config(queries__deadline_s=100, queries__ahead=2, queries__in_flight=2)
ANSWERS, FAILED = 120, 3
SIZES = 64, 8  # images of a query to each silo; a batch has 30


class Fate:
    """Counts the points a process passes, by name; kills it at one of them.

    Args:
        death: name of a point and how many times it is survived; None: never.
    """

    def __init__(self, death: tuple[str, int] | None) -> None:
        self.passed: collections.Counter[str] = collections.Counter()
        self._death = death

    def at(self, name: str) -> bool:
        """Whether this is the end."""
        self.passed[name] += 1
        return self._death == (name, self.passed[name] - 1)

    def point(self, name: str) -> None:
        if self.at(name):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Puts points into everything that makes something last."""
        sync, replace, commit = os.fsync, Path.replace, AnswerBank._commit
        reserve, store = Ledger.reserve, Ledger.store

        def fsync(descriptor):
            file = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            data = file.parent.name == "bank" and file.suffix != ".jsonl"
            self.point(f"before {'the bank' if data else file.name} is synced")
            sync(descriptor)

        def put(path, target):
            self.point(f"before {Path(target).name} is replaced")
            return replace(path, target)

        def committed(bank, event, *data):
            kinds = {"answered": "answer", "part": "part", "batch": "query"}
            kind = next((kind for key, kind in kinds.items() if key in event), "head")
            if self.at(f"in the journal's line: {kind}"):
                line = json.dumps(event).encode()
                with bank._journal_path.open("ab") as file:
                    file.write(line[: len(line) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            commit(bank, event, *data)
            self.point(f"after the journal's line: {kind}")

        def reserved(ledger, *args, **named):
            found = reserve(ledger, *args, **named)
            self.point("after the charge")
            return found

        def stored(ledger, *args, **named):
            self.point("before the reply is stored")
            reply = store(ledger, *args, **named)
            self.point("before the reply is sent")
            return reply

        os.fsync, Path.replace, AnswerBank._commit = fsync, put, committed
        Ledger.reserve, Ledger.store = reserved, stored


def run(folder: Path, fate: Fate, *, resume: bool) -> None:
    fate.watch()
    gatekeepers = [open_gatekeeper(folder / f"silo-{number}") for number in range(2)]
    distill(CONFIG, LocalTransport(gatekeepers), folder / "run", resume=resume)
    (folder / "points.json").write_text(json.dumps(fate.passed))


def in_a_process(folder: Path, death: tuple[str, int] | None = None, *, resume: bool = False) -> int:
    """The run in a process of its own; how that ended."""
    child = os.fork()
    if child == 0:
        status = FAILED
        try:
            run(folder, Fate(death), resume=resume)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def silos(folder: Path) -> Path:
    folder.mkdir()
    for number, (threshold, most) in enumerate(((b"100", SIZES[0]), (b"150", SIZES[1]))):
        policy = {"answers": 10_000, "images_per_query": most}
        make_folder(folder / f"silo-{number}", threshold, policy, silo=f"silo-{number}")
    return folder


def check(folder: Path, student: dict[str, torch.Tensor], point: str) -> None:
    """Every answer paid once and banked, and the very same student."""
    journal = folder / "run/bank/journal.jsonl"
    _, batches = replay(journal, journal.read_bytes())
    for number in range(2):
        silo = folder / f"silo-{number}"
        ledger = Ledger.open(silo / LEDGER_FILE, load_manifest(silo).population)
        status = ledger.verify()
        charged = [row["query_id"] for row in ledger.export() if row["kind"] == "charged"]
        answered = [row["query_id"] for row in ledger.export() if row["kind"] == "answered"]
        ledger.close()
        banked = set()
        for batch in batches:
            if f"silo-{number}" in batch.answered:
                asked = Batch(batch.query_id, batch.round, batch.first, batch.count)
                banked |= {part.query_id for part in parts_of(asked, f"silo-{number}", SIZES[number])}
        assert len(charged) == len(set(charged)), f"{point}: a query was paid twice"
        assert set(charged) == set(answered) == banked, f"{point}: an answer was lost"
        assert status.spent.answers == sum(batch.count for batch in batches) == ANSWERS, point
    got = load_file(folder / "run/student.safetensors")
    assert got.keys() == student.keys()
    assert all(torch.equal(got[name], student[name]) for name in student), f"{point}: another student"


def main(folder: Path) -> None:
    """Dies once at every point of a run, by name, and half the time once more; which time it is, the seed says."""
    fedcpsc.distillation.ending.save_pictures = lambda *args: None
    fedcpsc.distillation.held_answers._MOST = 2  # so that a batch is banked in parts
    whole = silos(folder / "whole")
    assert in_a_process(whole) == 0
    points = json.loads((whole / "points.json").read_text())
    student = load_file(whole / "run/student.safetensors")
    check(whole, student, "no death")
    chance = random.Random(5)
    names = sorted(points)
    for number, name in enumerate(names):
        death = name, chance.randrange(points[name])
        one = silos(folder / str(number))
        assert in_a_process(one, death) == -signal.SIGKILL, death
        again = (chance.choice(names), 0) if number % 2 else None
        if in_a_process(one, again, resume=True) == -signal.SIGKILL:
            assert in_a_process(one, resume=True) == 0, (death, again)
        check(one, student, f"{death}, then {again}")
    print(json.dumps(names))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
