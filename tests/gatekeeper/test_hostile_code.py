# SPDX-License-Identifier: Apache-2.0
"""A run's own code against a gatekeeper under another user: it gets answers by the policy, or refusals, and no more.

The gatekeeper is the command line's, under the user `daemon`, its socket made as `--group` makes it; the ClientApp runs
in a process of the user `nobody`, through Flower's messages (`supernode_user.py`), as a SuperNode would run it. Both
users are the system's, so the tests need root, and skip with the reason where there is none.
"""

import json
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.documented import ROOT
from support.hostile_outcomes import nothing_was_touched, refused_beyond_the_policy
from support.other_users import ENVIRONMENT, NODE, OWNER, as_user, needs_other_users, served
from support.silo_folder import make_folder

from fedcpsc.errors import RefusalCode
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, save_policy
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import Answer, AnswerForm, Message, Query, Refusal
from fedcpsc.teachers.manifest import load_manifest

BUDGET = 400


@dataclass
class Silo:
    folder: Path
    socket: Path
    process: subprocess.Popen[bytes]
    log: Path

    def send(self, message: Message, *, module: str, user: str = NODE, attacks: str = "") -> bytes:
        node = json.dumps({"gatekeeper-socket": str(self.socket)})
        run = json.dumps({"attacks": attacks, "silo": str(self.folder), "pid": self.process.pid})
        script = str(ROOT / "tests/gatekeeper/supernode_user.py")
        done = subprocess.run(
            as_user(user, script, module, node, run),
            input=to_bytes(message),
            env=ENVIRONMENT,
            cwd="/",
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return done.stdout

    def attacked(self, attacks: str, user: str = NODE) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(
            self.send(asked(0), module="hostile_app", user=user, attacks=attacks)
        )
        return found

    def honest(self, query: Query) -> Answer | Refusal:
        reply = from_bytes(self.send(query, module="clients.app"))
        assert isinstance(reply, Answer | Refusal)
        return reply


def asked(number: int) -> Query:
    images = np.random.default_rng(100 + number).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    return Query(f"{number:032x}", AnswerForm.PROBABILITIES, images, run="honest", principal="honest")


@pytest.fixture(scope="module")
def silo() -> Iterator[Silo]:
    """A served silo whose ledger holds 400 answers, and whose policy would allow more."""
    needs_other_users()
    base = Path(tempfile.mkdtemp(prefix="hostile-", dir="/tmp"))  # a socket's path is limited, and others pass
    base.chmod(0o755)
    folder, place, log = base / "silo", base / "run" / "s", base / "log"
    service = {"queue": 4, "connections": 16, "read_timeout_s": 2.0}
    make_folder(folder, policy={"answers": BUDGET, "images_per_query": 50, "service": service})
    policy = load_policy(folder / POLICY_FILE)
    save_policy(policy.model_copy(update={"answers": 10_000}), folder / POLICY_FILE)
    try:
        with served(folder, place, log) as process:
            yield Silo(folder, place, process, log)
    finally:
        shutil.rmtree(base)


def test_neither_the_teacher_nor_the_ledger_nor_the_process_can_be_touched(silo: Silo) -> None:
    assert stat.S_IMODE(silo.socket.stat().st_mode) == 0o660
    found = silo.attacked("steal sabotage")
    nothing_was_touched(found)
    assert silo.process.poll() is None


def test_under_the_gatekeepers_own_user_there_is_no_wall(silo: Silo) -> None:
    found = silo.attacked("steal", user=OWNER)["steal"]
    assert found["read the teacher"] == found["read the ledger"] == found["look at its files"] == "DONE"


def test_run_code_gets_answers_by_the_policy_or_codes_the_ledger_shows_all_and_honest_runs_go_on(silo: Silo) -> None:
    first = silo.honest(asked(1))
    assert isinstance(first, Answer)
    process = psutil.Process(silo.process.pid)
    memory = process.memory_info().rss

    found = silo.attacked("ask malform gigabyte flood")
    answers = refused_beyond_the_policy(found)

    assert silo.process.poll() is None
    assert process.memory_info().rss - memory < 50 * 2**20
    again = silo.honest(asked(1))
    assert isinstance(again, Answer)
    assert to_bytes(again) == to_bytes(first), "what an honest run had paid for is still there"
    assert silo.honest(asked(2)) == Refusal(RefusalCode.BUDGET, asked(2).query_id)

    ledger = [
        "-m",
        "fedcpsc.cli",
        "ledger",
        "raise",
        str(silo.folder),
        "--answers",
        "1000",
        "--note",
        "after an attack",
    ]
    subprocess.run(as_user(OWNER, *ledger), env=ENVIRONMENT, cwd="/", check=True, capture_output=True)
    assert isinstance(silo.honest(asked(3)), Answer)

    book = Ledger.open(silo.folder / "ledger.sqlite", load_manifest(silo.folder).population)
    rows = list(book.export())
    spent = book.verify().spent.answers
    book.close()
    charged = [row for row in rows if row["kind"] == "charged"]
    assert {row["run"] for row in rows if row["run"]} == {"hostile", "honest"}
    assert sum(row["answers"] for row in charged if row["run"] == "hostile") >= 2 + answers
    assert spent == sum(row["answers"] for row in charged)
    assert spent == BUDGET + 3, "spent to the end, not beyond; and then what the owner allowed"
    assert sum(row["kind"] == "refused" for row in rows) > 0

    log = silo.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert len(log) < 2**20
    assert not any("all is well" in line["message"] for line in lines)
    assert {line.get("code") for line in lines} >= {
        "malformed",
        "too_many_images",
        "form",
        "version",
        "replay",
        "budget",
    }
    assert not any(line["level"] == "error" for line in lines), [line for line in lines if line["level"] == "error"][:3]
