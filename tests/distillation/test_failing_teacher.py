# SPDX-License-Identifier: Apache-2.0
"""A teacher that fails in a run: one query at most is charged unanswered, and it is answered free later."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from support.silo_folder import make_folder
from support.tiny_runs import tiny_config as config
from test_run import Resting

from fedcpsc.distillation.run import distill
from fedcpsc.errors import TeacherError
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.outage import Outage
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.layout import BANK_FOLDER

NAMES = ("north", "south")
SHAPE = (1, 8, 8)


class Failing:
    """South's teacher: fails from its `first`-th call on, while `ill`; a trial of it passes."""

    def __init__(self, teacher, first: int) -> None:
        self.classes, self.image_shape = teacher.classes, teacher.image_shape
        self._teacher, self._first = teacher, first
        self.calls, self.ill = 0, True

    def predict(self, images):
        self.calls += 1
        if self.ill and self.calls >= self._first:
            raise TeacherError("CUDA out of memory")
        return self._teacher.predict(images)


def opened(folder: Path, first: int) -> tuple[list[Gatekeeper], Failing]:
    """Both silos, made where they are not yet there."""
    for name in NAMES:
        if not (folder / name).exists():
            make_folder(folder / name, policy={"answers": 500, "images_per_query": 30}, silo=name, population=name)
    north, south = (open_gatekeeper(folder / name) for name in NAMES)
    teacher = Failing(south.teacher, first)
    object.__setattr__(south, "teacher", teacher)
    return [north, south], teacher


def in_ledger(folder: Path) -> tuple[int, int, int]:
    """Images charged at south; queries charged, and replies stored."""
    with contextlib.closing(Ledger.read(folder / "south" / "ledger.sqlite")) as ledger:
        kinds = [row["kind"] for row in ledger.export()]
        return ledger.status().spent.answers, kinds.count("charged"), kinds.count("answered")


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("overlap", [{}, {"queries__ahead": 2, "queries__in_flight": 3}], ids=["one by one", "three"])
def test_in_a_whole_run_a_teacher_that_fails_is_charged_for_one_query_at_most(first, overlap, tmp_path):
    told: list[str] = []
    gatekeepers, teacher = opened(tmp_path, first)
    transport = Resting(gatekeepers)
    object.__setattr__(gatekeepers[1], "outage", Outage(transport.clock))
    settings = config(queries__deadline_s=1e3, **overlap)
    result = distill(settings, transport, tmp_path / "run", tell=told.append, clock=transport.clock)
    for gatekeeper in gatekeepers:
        gatekeeper.close()
    assert [silo["answers"] for silo in result["silos"]] == [120, 30 * (first - 1)]
    assert in_ledger(tmp_path) == (30 * first, first, first - 1)
    assert transport.rested_s > 240
    assert "south is no longer asked: refused (" in "".join(told)
    assert teacher.calls > first + 10  # the query that was charged is tried again and again


class Killed(Exception):
    """Ends a run as a power cut would."""


class Dying(Resting):
    """Ends the run after a minute of rests."""

    def receive(self, timeout_s):
        if self.rested_s > 30:
            raise Killed
        return super().receive(timeout_s)


def test_a_resumed_run_gets_the_answer_that_was_charged_and_pays_for_each_image_once(tmp_path):
    gatekeepers, teacher = opened(tmp_path, 2)
    settings = config(queries__deadline_s=1e3)
    dying = Dying(gatekeepers)
    with pytest.raises(Killed):
        distill(settings, dying, tmp_path / "run", clock=dying.clock)
    assert teacher.calls > 3
    for gatekeeper in gatekeepers:
        gatekeeper.close()
    assert in_ledger(tmp_path) == (60, 2, 1)
    gatekeepers, teacher = opened(tmp_path, 10**6)  # the owner has put it right
    transport = Resting(gatekeepers)
    result = distill(settings, transport, tmp_path / "run", resume=True, clock=transport.clock)
    for gatekeeper in gatekeepers:
        gatekeeper.close()
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]
    assert in_ledger(tmp_path) == (120, 4, 4)
    bank = AnswerBank(tmp_path / "run" / BANK_FOLDER, SHAPE, 2, NAMES)
    assert all(batch.answered == set(NAMES) for batch in bank.batches)
