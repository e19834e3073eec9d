# SPDX-License-Identifier: Apache-2.0
"""Of a run that finished, the targets that are handed on are those that its student was fitted to."""

import shutil

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.kept_runs import of_teacher
from support.tiny_runs import tiny_config

from fedcpsc.answer_set.import_bank import import_bank
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import RunError
from fedcpsc.export.answers import export_answers
from fedcpsc.protocol.messages import AnswerForm, ClassReport
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.simulated.refitting import refit_run

NAMES = ("silo-0", "silo-1", "silo-2")
COUNTS = ClassReport((20.0, 10.0, 30.0))
UNLIKE = {"silo-1": {"forms": (AnswerForm.LABEL,)}, "silo-2": {"noise_sigma": 0.2}}


def liar(images):
    return np.eye(3, dtype=np.float32)[(brightness_probabilities(images, 3).argmax(1) + 1) % 3]


def silos(forbidding=(), unlike=False):
    return [
        FakeSilo(
            name,
            teacher=liar if name == "silo-2" else None,
            class_report=COUNTS,
            share_answers=name not in forbidding,
            **(UNLIKE.get(name, {}) if unlike else {}),
        )
        for name in NAMES
    ]


def config(exclude=(), **changes):
    return tiny_config(silos__count=3, aggregation__exclude=list(exclude), **changes)


def targets_of(folder, tmp_path, **options):
    out, new = tmp_path / "out", tmp_path / "new"
    facts = export_answers(folder, out, **options)
    import_bank(out, new)
    found = np.array(read_bank(new / "bank").targets)
    shutil.rmtree(out)
    shutil.rmtree(new)
    return found, facts


@pytest.mark.parametrize("rule", ["uniform", "entropy", "class_prior_log", "answer_prior_log", "answer_peak_log"])
@pytest.mark.parametrize("unlike", [False, True])
def test_they_are_the_runs_own_to_the_bit(tmp_path, rule, unlike):
    run = tmp_path / "run"
    changes = {"queries__answers_per_silo": 300, "queries__form": "best" if unlike else "probabilities"}
    distill(config(aggregation__rule=rule, **changes), LocalTransport(silos(unlike=unlike)), run)
    found, facts = targets_of(run, tmp_path)
    np.testing.assert_array_equal(found, read_bank(run / "bank").targets)
    assert facts.run.finished
    assert facts.run.versions["numpy"] == np.__version__


def test_without_a_silo_they_are_those_of_the_run_fitted_anew_without_it(tmp_path):
    run = tmp_path / "run"
    distill(config(), LocalTransport(silos(forbidding=["silo-2"])), run)
    with pytest.raises(RunError, match="silo-2: its policy says share_answers: false"):
        export_answers(run, tmp_path / "out")
    found, facts = targets_of(run, tmp_path, exclude=["silo-2"])
    assert facts.silos_left_out == 1
    stored = np.array(read_bank(run / "bank").targets)
    clean = brightness_probabilities(np.array(read_bank(run / "bank").images), 3)
    assert np.abs(stored - clean).max() > 0.1, "the liar's answers stand in the run's own targets"
    np.testing.assert_allclose(found, clean, atol=5e-3)
    distill(config(["silo-2"]), LocalTransport(silos()), run, resume=True)
    np.testing.assert_array_equal(found, read_bank(run / "bank").targets)


def test_a_silo_that_agrees_while_the_run_goes_on_is_handed_on(tmp_path):
    run, fakes = tmp_path / "run", silos(forbidding=["silo-1"])

    def killed(query, count):
        if count > 2:
            raise KeyboardInterrupt

    fakes[0].misbehave = killed
    with pytest.raises(KeyboardInterrupt):
        distill(config(), LocalTransport(fakes), run)
    with pytest.raises(RunError, match="silo-1"):
        export_answers(run, tmp_path / "out")
    distill(config(), LocalTransport(silos()), run, resume=True)
    assert len(targets_of(run, tmp_path)[0]) == 120
    distill(config(["silo-2"]), LocalTransport(silos(forbidding=["silo-0"])), run, resume=True)
    with pytest.raises(RunError, match=r"has 1 silo\(s\).*silo-0"):  # it has changed its mind
        export_answers(run, tmp_path / "out")


def test_an_imported_run_is_refitted_and_gone_on_with(tmp_path):
    distill(config(), LocalTransport(silos()), tmp_path / "run")
    facts = export_answers(tmp_path / "run", tmp_path / "out")
    import_bank(tmp_path / "out", tmp_path / "runs" / "imported")
    fast = ("student.width=4", "student.final_steps=3", "student.steps_per_round=1", "student.committee=1")
    _, fitted = refit_run(tmp_path / "runs" / "imported", fast)
    assert fitted["refit"]
    assert [silo["answers"] for silo in fitted["silos"]] == [silo.answers for silo in facts.silos]
    newcomer = FakeSilo("silo-3", share_answers=True)
    federation = [*silos(), newcomer]
    more = tiny_config(silos__count=4, queries__start_from=str(tmp_path / "runs" / "imported"))
    result = distill(more, LocalTransport(federation), tmp_path / "more")
    assert {silo["id"]: silo["answers_here"] for silo in result["silos"]} == {
        "silo-0": 0, "silo-1": 0, "silo-2": 0, "silo-3": facts.rows,
    }  # fmt: skip
    assert [len(silo.answered) for silo in federation[:3]] == [0, 0, 0]


def test_answers_of_a_replaced_teacher_are_handed_on_only_where_their_silo_still_agrees(tmp_path):
    before = [FakeSilo("silo-0", share_answers=True), of_teacher("a" * 16, FakeSilo("silo-1", share_answers=True))]
    distill(tiny_config(), LocalTransport(before), tmp_path / "run")
    now = [FakeSilo("silo-0", share_answers=True), of_teacher("b" * 16, FakeSilo("silo-1"))]
    distill(tiny_config(queries__start_from=str(tmp_path / "run")), LocalTransport(now), tmp_path / "more")
    with pytest.raises(RunError, match=r"2 silo\(s\).*silo-1@aaaaaaaa"):
        export_answers(tmp_path / "more", tmp_path / "out")
    facts = export_answers(tmp_path / "more", tmp_path / "out", exclude=["silo-1", "silo-1@aaaaaaaa"])
    assert [silo.name for silo in facts.silos] == ["silo-0"]
