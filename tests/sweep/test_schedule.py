# SPDX-License-Identifier: Apache-2.0
"""Which process begins when, what a failure stops, and what a stop leaves behind."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest

from fedcpsc.sweep import schedule
from fedcpsc.sweep.made_silos import silos_key
from fedcpsc.sweep.processes import TaskProcess, end_all
from fedcpsc.sweep.schedule import usual_jobs, work
from fedcpsc.sweep.tasks import Task, plan_tasks


class FakeProcess:
    """Ends at the next look but one; `failing` names those that fail."""

    failing: ClassVar[dict[str, str]]
    begun: ClassVar[list[str]]
    living: ClassVar[set[str]]
    most: ClassVar[int]

    def __init__(self, task, log, threads, mark):
        self.task, self.began, self._looks = task, time.monotonic(), 0
        FakeProcess.begun.append(task.name)
        FakeProcess.living.add(task.name)
        FakeProcess.most = max(FakeProcess.most, len(FakeProcess.living))

    def ended(self):
        self._looks += 1
        return self._looks > 1

    def failure(self):
        FakeProcess.living.discard(self.task.name)
        return FakeProcess.failing.get(self.task.name)


@pytest.fixture
def processes(monkeypatch):
    FakeProcess.failing, FakeProcess.begun, FakeProcess.living, FakeProcess.most = {}, [], set(), 0
    monkeypatch.setattr(schedule, "TaskProcess", FakeProcess)
    monkeypatch.setattr(schedule, "_LOOK_S", 0.001)
    monkeypatch.setattr(schedule, "end_all", lambda running, mark: [one.failure() for one in running])
    return FakeProcess


def tasks_of(sweep, done=(), begun=()):
    missing = [run for run in sweep.everything if run.name not in done]
    return plan_tasks(sweep, sweep.folder / "made", missing, begun)


def test_silos_are_made_once_for_runs_whose_silos_are_alike(planned):
    tasks = tasks_of(planned())
    made = [task for task in tasks if task.job["do"] == "silos"]
    assert [task.title for task in made] == [f"silos of seed {seed}, for 2 runs" for seed in (1, 2, 3)]
    for task in tasks:
        if task.run is not None:
            assert task.after == (f"silos-{silos_key(task.run.config)}",)
            assert tasks.index(task) > [one.name for one in tasks].index(task.after[0])
    unlike = planned(settings={"iid": {}, "skewed": {"silos.partition.kind": "dirichlet"}})
    assert sum(task.job["do"] == "silos" for task in tasks_of(unlike)) == 6


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"student.width": 4}, True),
        ({"queries.answers_per_silo": 30, "queries.rounds": 2}, True),
        ({"teachers.epochs": 2}, False),
        ({"data.train_limit": 100}, False),
        ({"silos.policy.bits": 32}, False),
        ({"runtime.threads": 2}, False),
    ],
)
def test_silos_are_alike_where_nothing_that_makes_them_differs(planned, change, alike):
    sweep = planned(settings={"plain": {}, "changed": change}, seeds=[1])
    assert (silos_key(sweep.runs[0].config) == silos_key(sweep.runs[1].config)) is alike


def test_what_is_done_is_left_out_and_what_was_begun_has_its_silos(planned):
    tasks = tasks_of(planned(), done={"uniform-seed1", "uniform-seed2", "entropy-seed2"}, begun={"entropy-seed1"})
    assert [task.title for task in tasks] == [
        "entropy-seed1",
        "silos of seed 3, for 2 runs",
        "uniform-seed3",
        "entropy-seed3",
    ]
    assert tasks[0].after == ()


def test_shared_answers_are_waited_for(planned):
    tasks = {task.name: task for task in tasks_of(planned(answers="shared", seeds=[1]))}
    bank, one, other = [name for name in tasks if not name.startswith("silos")]
    assert tasks[one].after == tasks[other].after == (bank,)
    assert (tasks[bank].job["do"], tasks[one].job["do"]) == ("run", "refit")
    assert tasks[one].job["silos"] == tasks[bank].job["silos"]
    assert sum(name.startswith("silos") for name in tasks) == 1


def test_as_many_run_at_a_time_as_were_asked_for_and_each_end_is_shown_once(planned, processes):
    seen = []
    tasks = tasks_of(planned())
    outcomes = work(tasks, Path("nowhere"), 2, seen.append)
    assert list(outcomes) == [progress.ended[0].name for progress in seen if progress.ended]
    assert [len(progress.outcomes) for progress in seen if progress.ended] == list(range(1, 10))
    assert [progress.began.name for progress in seen if progress.began] == processes.begun
    assert processes.begun[:2] == [task.name for task in tasks if task.job["do"] == "silos"][:2]
    assert processes.most == 2


def test_a_failure_stops_its_followers_alone(planned, processes):
    tasks = tasks_of(planned())
    first = tasks[0].name
    processes.failing = {first: "DataError: no such file", "entropy-seed3": "RunError: diverged"}
    outcomes = work(tasks, Path("nowhere"), 2, lambda progress: None)
    failed = {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure}
    assert failed == {
        first: "DataError: no such file",
        "uniform-seed1": f"{first}: DataError: no such file",
        "entropy-seed1": f"{first}: DataError: no such file",
        "entropy-seed3": "RunError: diverged",
    }
    assert "uniform-seed1" not in processes.begun


def test_a_stop_ends_all_processes(planned, processes):
    def stops(progress):
        if progress.ended:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(tasks_of(planned()), Path("nowhere"), 3, stops)
    assert processes.living == set()


def test_jobs_suit_the_machine(monkeypatch):
    monkeypatch.setattr(schedule, "cores", lambda: 8)
    monkeypatch.setattr(schedule.psutil, "virtual_memory", lambda: SimpleNamespace(available=5 << 30))
    assert usual_jobs(100, 1, gpu=False) == 5
    assert usual_jobs(3, 0, gpu=False) == 3
    assert usual_jobs(100, 4, gpu=False) == 2
    assert usual_jobs(100, 16, gpu=False) == 1


def broken_task(planned):
    task = tasks_of(planned())[0]
    return Task("broken", "broken", {**task.job, "config": {"studnet": {}}}, (), None)


def test_the_last_line_of_a_process_that_failed_says_why(planned, tmp_path):
    process = TaskProcess(broken_task(planned), tmp_path / "logs/broken.log", 1, "mark")
    deadline = time.monotonic() + 60
    while not process.ended():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.failure().startswith("ConfigError: job: studnet: unknown key")


def test_a_killed_process_is_told_as_such(planned, tmp_path):
    process = TaskProcess(tasks_of(planned())[0], tmp_path / "logs/killed.log", 1, "mark")
    os.kill(process.pid, 9)
    assert "SIGKILL; the machine may be out of memory: fewer --jobs" in process.failure()


def test_ended_processes_are_gone(planned, tmp_path):
    process = TaskProcess(tasks_of(planned())[0], tmp_path / "logs/ended.log", 1, "ours")
    unknown = TaskProcess(tasks_of(planned())[0], tmp_path / "logs/unknown.log", 1, "ours")  # its start was cut off
    other = TaskProcess(tasks_of(planned())[0], tmp_path / "logs/other.log", 1, "another sweep's")
    try:
        end_all([process], "ours")
        assert not psutil.pid_exists(process.pid)
        assert not psutil.pid_exists(unknown.pid)
        assert not other.ended()
    finally:
        unknown.failure()
        end_all([other], "another sweep's")
