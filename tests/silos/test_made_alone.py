# SPDX-License-Identifier: Apache-2.0
"""Two processes that make the same silos at once train each teacher once."""

import errno
import fcntl
import os
import stat
import threading

from fedcpsc.config import RunConfig
from fedcpsc.silos.make import make_silos


def small_config():
    tree = {
        "data": {"train_limit": 40, "test_limit": 20},
        "silos": {"count": 1, "partition": {"kind": "iid"}},
        "teachers": {"width": 4, "epochs": 1},
        "runtime": {"device": "cpu", "threads": 1},
    }
    return RunConfig.model_validate(tree)


def test_the_later_one_waits_and_uses_what_the_earlier_one_made(tmp_path):
    first_at_work, waiting, told = threading.Event(), threading.Event(), list[str]()

    def first(line):
        if "training" in line:
            first_at_work.set()
            assert waiting.wait(60)  # so that the second comes while this one trains

    def second(line):
        told.append(line)
        if "waiting" in line:
            waiting.set()

    thread = threading.Thread(target=make_silos, args=(small_config(), tmp_path, first))
    thread.start()
    assert first_at_work.wait(60)
    reports = make_silos(small_config(), tmp_path, second)
    thread.join(60)
    assert told == ["silo-0: another process is making this silo: waiting for it"]
    assert [report.reused for report in reports] == [True]


def test_a_silo_is_made_where_folders_cannot_be_locked(tmp_path, monkeypatch):
    lock = fcntl.flock

    def files_alone(file, operation):
        if isinstance(file, int) and stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", files_alone)
    assert [report.reused for report in make_silos(small_config(), tmp_path)] == [False]
