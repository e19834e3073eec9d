# SPDX-License-Identifier: Apache-2.0
"""The gatekeeper as a real process: one per ledger, graceful at SIGTERM, unharmed by SIGKILL."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.silo_folder import SHAPE, make_folder

from fedcpsc.errors import LedgerError, ManifestError
from fedcpsc.gatekeeper import service
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, Query

TESTS = str(Path(__file__).parents[1])


def start(folder: Path, path: Path) -> subprocess.Popen[str]:
    code = f"from fedcpsc.gatekeeper.service import serve; serve({str(folder)!r}, {str(path)!r})"
    environment = os.environ | {"PYTHONPATH": TESTS}
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)


def ask(path: Path, number: int) -> Answer:
    """The answer of the gatekeeper at `path`, waiting until it is up."""
    with contextlib.closing(SocketGatekeeper(path)) as client:
        for _ in range(400):
            if path.is_socket() and isinstance(client.describe(DescribeRequest()), Description):
                answer = client.answer(asked(number))
                assert isinstance(answer, Answer)
                return answer
            time.sleep(0.05)
    pytest.fail("the gatekeeper did not come up in 20 s")


def asked(number: int) -> Query:
    return Query(f"{number:032x}", AnswerForm.PROBABILITIES, np.full((2, *SHAPE), number, np.uint8))


# httpcore drops a socket that found nobody listening (after SIGKILL) without closing it; the collector does
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_gatekeeper_lives_alone_dies_gracefully_and_remembers(tmp_path: Path) -> None:
    folder, path = tmp_path / "silo", tmp_path / "s"
    manifest = make_folder(folder)
    process = start(folder, path)
    try:
        first = ask(path, 1)
        rival = start(folder, tmp_path / "other")
        _, complaint = rival.communicate(timeout=30)
        assert rival.returncode != 0
        assert "is served by another gatekeeper" in complaint
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert not path.exists()
        assert not (folder / "ledger.sqlite.lock").exists()
        process.communicate()
        process = start(folder, path)  # a new process finds what the old one answered
        assert to_bytes(ask(path, 1)) == to_bytes(first)
        process.kill()
        process.communicate()
        process = start(folder, path)  # the dead one's socket and lock are no obstacle
        ask(path, 2)
    finally:
        process.kill()
        process.communicate()
    assert Ledger.open(folder / "ledger.sqlite", manifest.population).verify().spent.answers == 4


def test_a_gatekeeper_that_does_not_start_leaves_no_lock_behind(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "manifest.json").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ManifestError, match="cannot be read"):
        service.serve(tmp_path, tmp_path / "s")
    assert sorted(tmp_path.iterdir()) == before


def test_the_lock_is_its_owners_alone_and_one_that_was_just_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "ledger.sqlite.lock"
    with service._only_one(tmp_path):
        assert lock.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(service.fcntl, "flock", lambda *_: lock.unlink())
    with pytest.raises(LedgerError, match="is served by another gatekeeper"), service._only_one(tmp_path):
        pass
