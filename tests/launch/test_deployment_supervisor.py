# SPDX-License-Identifier: Apache-2.0
"""A supervisor takes all members down, whatever they start, however they resist; a folder holds one deployment."""

import io
import os
import signal
import socket
import sys
import threading
import time
import uuid

import psutil
import pytest
from rich.console import Console

from fedcpsc.commands.deployment_table import describe_status, show_until_interrupted, table
from fedcpsc.errors import RunError
from fedcpsc.launch.deployment.layout import claimed
from fedcpsc.launch.deployment.supervisor import MARK, Member, Supervisor
from fedcpsc.launch.processes import free_ports, marked

READY = "open('ready', 'w').close(); "
SLEEPS = READY + "time.sleep(60)"


@pytest.fixture
def supervisor(tmp_path):
    """A supervisor, with `join(name, code, rank)` to start a member that runs Python code in a folder of its own."""
    made = Supervisor(uuid.uuid4().hex)

    def join(name, code=SLEEPS, rank=0, stop_s=5.0, restart_s=5.0):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-c", f"import os, signal, subprocess, sys, time; {code}"]
        ready = (folder / "ready").exists
        log = folder / "log"
        made.start(Member(name, command, "here", folder, dict(os.environ), log, ready, rank, stop_s, restart_s))
        return folder

    made.join = join
    yield made
    made.take_down()


def up(supervisor):
    supervisor.wait_until(lambda: all(status.ready for status in supervisor.statuses()), "supervisor", 30)


def test_it_is_up_when_all_are_ready_and_down_when_nobody_is_left(supervisor):
    supervisor.join("one")
    supervisor.join("two")
    up(supervisor)
    assert [describe_status(status) for status in supervisor.statuses()] == ["up", "up"]
    supervisor.take_down()
    assert all(status.exit_code is not None for status in supervisor.statuses())
    assert marked(MARK, supervisor._mark) == set()


def test_who_ignores_the_signal_is_killed_and_descendants_go_too(supervisor):
    supervisor.join("stubborn", "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS, stop_s=0.3)
    detached = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); "
    supervisor.join("parent", detached + READY, stop_s=0.3)
    deadline = time.monotonic() + 30
    while not (supervisor.statuses()[0].ready and supervisor.statuses()[1].exit_code == 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(marked(MARK, supervisor._mark)) == 2  # the stubborn one, and the child of one that is gone
    supervisor.take_down()
    assert marked(MARK, supervisor._mark) == set()


def test_lower_ranks_are_stopped_before_higher_ones(supervisor, tmp_path):
    order = tmp_path / "order"
    leave = "signal.signal(signal.SIGTERM, lambda *_: (open({!r}, 'a').write({!r}), sys.exit())); " + SLEEPS
    for name, rank in (("c", 2), ("a", 0), ("b", 1)):
        supervisor.join(name, leave.format(str(order), name), rank)
    up(supervisor)
    supervisor.take_down()
    assert order.read_text() == "abc"


def test_one_that_ends_while_others_are_waited_for_is_an_error_with_its_last_words(supervisor):
    supervisor.join("poor", "print('no such port'); sys.exit(3)")
    with pytest.raises(RunError, match=r"poor='here': ended with exit code 3 \(no such port\); read .*log"):
        supervisor.wait_until(lambda: False, "never", 30)
    assert describe_status(supervisor.statuses()[0]) == "ended with exit code 3"


def test_waiting_is_bounded(supervisor):
    supervisor.join("slow", "time.sleep(60)")
    with pytest.raises(RunError, match="slow to come.*did not happen in time"):
        supervisor.wait_until(lambda: False, "slow to come", 0.3)
    assert describe_status(supervisor.statuses()[0]) == "not answering"


def test_signals_do_not_cut_taking_down_short(supervisor):
    supervisor.join("one")
    up(supervisor)
    stop = threading.Event()

    def pester():
        while not stop.wait(0.01):
            os.kill(os.getpid(), signal.SIGTERM)

    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # before and after `take_down` it would end this test
    thread = threading.Thread(target=pester)
    thread.start()
    try:
        supervisor.take_down()
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGTERM, ignored)
    assert marked(MARK, supervisor._mark) == set()


def test_a_change_is_told_once_and_where_to_read_on(supervisor):
    supervisor.join("one")
    up(supervisor)
    console = Console(record=True, width=300, file=io.StringIO())
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    (pid,) = (status.pid for status in supervisor.statuses())
    signal.setitimer(signal.ITIMER_REAL, 2.5)
    threading.Timer(0.5, psutil.Process(pid).kill).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            show_until_interrupted(supervisor, console)
    finally:
        signal.signal(signal.SIGALRM, before)
    told = console.export_text().splitlines()
    assert [line.split(", ")[0] for line in told] == ["one: up", "one: ended with exit code -9"]
    assert all(line.endswith("log") for line in told)


def test_the_table_has_a_row_for_each(supervisor):
    supervisor.join("one")
    supervisor.join("two", "sys.exit(1)")
    deadline = time.monotonic() + 30
    while not (supervisor.statuses()[0].ready and supervisor.statuses()[1].exit_code):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(table(supervisor.statuses()))
    shown = console.export_text()
    assert "ended with exit code 1" in shown
    assert str(supervisor.statuses()[0].pid) in shown


def test_a_folder_holds_one_deployment_and_keeps_only_its_runs(tmp_path):
    with claimed(tmp_path / "d") as layout:
        layout.server.mkdir()
        (layout.runs / "first").mkdir()
        with pytest.raises(RunError, match="a deployment is up there"), claimed(tmp_path / "d"):
            pass
        assert layout.server.exists()
    with claimed(tmp_path / "d") as again:
        assert not again.server.exists()
        assert (again.runs / "first").exists()
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_deployment_left_running_is_ended_by_the_next_one(supervisor, tmp_path):
    with claimed(tmp_path / "d") as layout:
        layout.note(supervisor._mark)
        supervisor.join("one")
        up(supervisor)
    with claimed(tmp_path / "d"):
        assert marked(MARK, supervisor._mark) == set()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    for name, said in (("d", "holds something else"), ("file", "is no folder")):
        with pytest.raises(RunError, match=said), claimed(tmp_path / name):
            pass
    assert (tmp_path / "d" / "thesis.tex").exists()


def test_free_ports_are_different_and_free():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_member_that_dies_is_started_again_and_what_it_left_running_goes(supervisor, tmp_path):
    child = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); "
    supervisor.join("one", child + "open('child', 'w').write(str(child.pid)); " + SLEEPS, restart_s=0.5)
    supervisor.join("done", READY)  # ends well, and so for good
    deadline = time.monotonic() + 30
    while not (supervisor.statuses()[0].ready and supervisor.statuses()[1].exit_code == 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first, ended = supervisor.statuses()
    orphan = psutil.Process(int((tmp_path / "one/child").read_text()))
    died = time.monotonic()
    with supervisor.supervise():
        psutil.Process(first.pid).kill()
        while supervisor.statuses()[0].pid == first.pid:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert time.monotonic() - died >= 0.5
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        assert supervisor.statuses()[1].pid == ended.pid
    again = supervisor.statuses()[0].pid
    psutil.Process(again).kill()
    time.sleep(1.0)
    assert supervisor.statuses()[0].exit_code == -signal.SIGKILL, "nobody keeps it up any more"
