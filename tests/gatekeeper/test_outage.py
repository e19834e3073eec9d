# SPDX-License-Identifier: Apache-2.0
"""A teacher that fails costs its silo one query, which is answered free later; nothing else is charged meanwhile."""

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from support.silo_folder import SHAPE, make_folder
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.errors import RefusalCode, Refused, TeacherError
from fedcpsc.gatekeeper import service
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.outage import Outage
from fedcpsc.gatekeeper.policy_check import check_policy
from fedcpsc.gatekeeper.silo_trial import try_in_folder
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.protocol.messages import Answer, AnswerForm, Query, Refusal


class Clock:
    """Seconds as the test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(number: int, count: int = 4) -> Query:
    return Query(f"{number:032x}", AnswerForm.PROBABILITIES, np.full((count, *SHAPE), number, np.uint8))


class Sick:
    """Wraps a gatekeeper's teacher: fails while `ill`, on invented images too while `very`."""

    def __init__(self, teacher) -> None:
        self.classes, self.image_shape = teacher.classes, teacher.image_shape
        self._teacher = teacher
        self.ill = self.very = True
        self.asked = 0

    def predict(self, images):
        self.asked += 1
        plain = len({int(pixel) for pixel in images.ravel()}) == 1
        if self.very or (self.ill and plain):
            raise ValueError("out of memory")
        return self._teacher.predict(images)


@pytest.fixture
def silo(tmp_path: Path):
    make_folder(tmp_path / "silo")
    clock = Clock()
    gatekeeper = open_gatekeeper(tmp_path / "silo")
    with contextlib.closing(gatekeeper):
        teacher = Sick(gatekeeper.teacher)
        object.__setattr__(gatekeeper, "teacher", teacher)
        object.__setattr__(gatekeeper, "outage", Outage(clock))
        yield gatekeeper, teacher, clock


def spent(gatekeeper) -> int:
    return gatekeeper.ledger.status().spent.answers


def code(reply) -> RefusalCode:
    assert isinstance(reply, Refusal), reply
    return reply.code


def test_after_one_failure_nothing_new_is_charged_and_what_was_is_answered_free_once_the_teacher_works(silo):
    gatekeeper, teacher, _ = silo
    assert code(gatekeeper.answer(asked(1))) is RefusalCode.INTERNAL
    for _ in range(5):
        assert code(gatekeeper.answer(asked(2))) is RefusalCode.OUT_OF_SERVICE
        assert code(gatekeeper.answer(asked(1))) is RefusalCode.INTERNAL
    assert spent(gatekeeper) == 4
    assert gatekeeper.outage.lasts
    teacher.ill = teacher.very = False
    assert isinstance(gatekeeper.answer(asked(1)), Answer)
    assert not gatekeeper.outage.lasts
    assert spent(gatekeeper) == 4
    assert isinstance(gatekeeper.answer(asked(2)), Answer)
    assert spent(gatekeeper) == 8


def test_a_server_that_does_not_know_the_code_yet_is_told_internal(silo):
    gatekeeper, _, _ = silo
    gatekeeper.answer(asked(1))
    for version, said in (
        ("1.0", RefusalCode.INTERNAL),
        ("1.1", RefusalCode.INTERNAL),
        ("1.2", RefusalCode.OUT_OF_SERVICE),
    ):
        assert code(gatekeeper.answer(dataclasses.replace(asked(2), version=version))) is said
    assert spent(gatekeeper) == 4


def test_another_process_answers_it_free_too_also_with_the_model_that_its_owner_fixed(silo, tmp_path):
    gatekeeper, _, _ = silo
    assert code(gatekeeper.answer(asked(1))) is RefusalCode.INTERNAL
    gatekeeper.close()
    manifest = json.loads((tmp_path / "silo" / "manifest.json").read_text())
    fixed = b"127.5"
    (tmp_path / "silo" / "teacher.safetensors").write_bytes(fixed)
    manifest["weights_sha256"] = hashlib.sha256(fixed).hexdigest()
    (tmp_path / "silo" / "manifest.json").write_text(json.dumps(manifest))
    with contextlib.closing(open_gatekeeper(tmp_path / "silo")) as later:
        assert isinstance(later.answer(asked(1)), Answer)
        assert spent(later) == 4
        rows = {row["kind"]: row["model"] for row in later.ledger.export()}
        later.ledger.verify()
    assert rows["answered"] == manifest["weights_sha256"] != rows["charged"]


def test_a_query_answered_from_the_ledger_needs_no_teacher_in_service(silo):
    gatekeeper, teacher, _ = silo
    teacher.ill = teacher.very = False
    first = gatekeeper.answer(asked(1))
    teacher.very = True
    assert code(gatekeeper.answer(asked(2))) is RefusalCode.INTERNAL
    again = gatekeeper.answer(asked(1))
    assert isinstance(again, Answer)
    assert (again.values == first.values).all()


def test_after_a_pause_a_trial_that_passes_lets_one_query_be_charged_and_each_failure_doubles_the_pause(silo):
    gatekeeper, teacher, clock = silo
    gatekeeper.answer(asked(1))
    teacher.very = False  # still fails on what is asked, though not on invented images
    clock.now = 59
    assert code(gatekeeper.answer(asked(2))) is RefusalCode.OUT_OF_SERVICE
    clock.now = 61
    assert code(gatekeeper.answer(asked(2))) is RefusalCode.INTERNAL
    assert code(gatekeeper.answer(asked(3))) is RefusalCode.OUT_OF_SERVICE
    assert spent(gatekeeper) == 8
    clock.now = 61 + 119
    assert code(gatekeeper.answer(asked(3))) is RefusalCode.OUT_OF_SERVICE
    clock.now = 61 + 121
    teacher.ill = False
    assert isinstance(gatekeeper.answer(asked(3)), Answer)
    teacher.ill = True
    gatekeeper.answer(asked(4))
    clock.now += 61  # a minute again
    teacher.ill = False
    assert isinstance(gatekeeper.answer(asked(5)), Answer)


def test_a_server_that_asks_again_within_a_minute_is_charged_for_one_query_however_long_it_goes_on(silo):
    gatekeeper, teacher, clock = silo
    teacher.very = False
    for _ in range(100):
        clock.now += 20
        gatekeeper.answer(asked(1))
        gatekeeper.answer(asked(2))
    assert spent(gatekeeper) == 4


def test_a_trial_that_fails_leaves_it_out_of_service(silo):
    gatekeeper, teacher, clock = silo
    gatekeeper.answer(asked(1))
    clock.now = 61
    before = teacher.asked
    assert code(gatekeeper.answer(asked(2))) is RefusalCode.OUT_OF_SERVICE
    assert teacher.asked == before + 1
    assert code(gatekeeper.answer(asked(2))) is RefusalCode.OUT_OF_SERVICE
    assert teacher.asked == before + 1  # not tried for every query
    assert spent(gatekeeper) == 4


def test_the_pause_ends_at_an_hour():
    clock = Clock()
    outage = Outage(clock)
    outage.failed()
    for _ in range(12):
        clock.now += 3601
        outage.check(lambda: None)
        outage.failed()
    clock.now += 3599
    with pytest.raises(Refused):
        outage.check(lambda: None)


FAILS = {"entry_point": "support.brightness_teacher:broken"}
FAILS_ON_TWO = {"entry_point": "support.brightness_teacher:one_at_a_time"}


@pytest.mark.parametrize("origin", ["adopted", "trained"])
@pytest.mark.parametrize("faulty", [FAILS, FAILS_ON_TWO], ids=["always", "on two images"])
def test_a_gatekeeper_whose_teacher_fails_its_trial_does_not_listen_and_its_ledger_stays_as_it_is(
    faulty, origin, tmp_path
):
    make_folder(tmp_path, origin=origin, **faulty)
    before = (tmp_path / "ledger.sqlite").read_bytes()
    with pytest.raises(TeacherError, match=r"teacher='\d invented image"):
        service.serve(tmp_path, tmp_path / "s")
    with pytest.raises(TeacherError):
        check_policy(tmp_path, tried=True)
    with pytest.raises(TeacherError):
        try_in_folder(tmp_path)
    assert not (tmp_path / "s").exists()
    assert (tmp_path / "ledger.sqlite").read_bytes() == before
    with contextlib.closing(Ledger.read(tmp_path / "ledger.sqlite")) as ledger:
        assert ledger.status().spent.answers == 0


def test_also_in_the_clients_own_process_an_adopted_teacher_is_tried_first(tmp_path):
    make_folder(tmp_path, **FAILS_ON_TWO)
    with pytest.raises(TeacherError):
        open_gatekeeper(tmp_path)


def test_policy_check_says_what_the_trial_found(tmp_path):
    make_folder(tmp_path)
    shown = CliRunner().invoke(app, ["policy", "check", str(tmp_path)])
    assert shown.exit_code == 0
    assert "The teacher was tried on invented images: 1,000 images take" in shown.output
    assert "(50 a forward pass)" in shown.output  # of images_per_query, where that is less than a batch
    report = CliRunner().invoke(app, ["policy", "check", str(tmp_path), "--json"])
    assert json.loads(report.output)["trial"]["batch_size"] == 50
