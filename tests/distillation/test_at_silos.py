# SPDX-License-Identifier: Apache-2.0
"""Silos judge the finished student: who is asked, what is made of their numbers, and that nothing spoils the run."""

import json
import math
import time

import numpy as np
import pytest
import torch
from support.fakes import FakeSilo
from support.inproc_grid import InProcGrid
from support.judging_silo import JudgingSilo
from support.tiny_runs import tiny_config

import clients.app
from fedcpsc.distillation import evaluation_requests
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import RefusalCode
from fedcpsc.models.sent import network_of_bytes
from fedcpsc.protocol.evaluation import EvaluationAnswer
from fedcpsc.runs.evaluations import pooled, read_evaluations, silo_evaluation
from fedcpsc.runs.result import read_result
from server.flower_transport import FlowerTransport


def config(**changes):
    return tiny_config(evaluation__at_silos=True, evaluation__held_out=False, **{"queries__deadline_s": 5.0} | changes)


def run(folder, silos, *, over="local", resume=False, told=None, student=None, **changes):
    told = [] if told is None else told
    rules = config(silos__count=len(silos), **changes)
    if over == "local":
        return distill(rules, LocalTransport(silos), folder, resume=resume, tell=told.append, student=student)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients.app, "target_of", lambda node, run, app, group: silos[node["which"]])
        grid = InProcGrid(clients.app.app, [{"which": i} for i in range(len(silos))])
        transport = FlowerTransport(grid, ttl_s=20)
        try:
            return distill(rules, transport, folder, resume=resume, tell=told.append, student=student)
        finally:
            transport.close()
            grid.close()


@pytest.mark.parametrize("over", ["local", "grid"])
def test_every_silo_that_offers_it_is_asked_once_about_the_finished_student(tmp_path, over):
    silos, told = [JudgingSilo("a"), JudgingSilo("b", 30, 50, sigma=4.0), FakeSilo("c")], []
    result = run(tmp_path / "run", silos, over=over, told=told)
    found = result["federated_evaluation"]
    assert [(one["id"], one["right"], one["images"], one["sigma"]) for one in found["silos"]] == [
        ("a", 80, 100, 0.0),
        ("b", 30, 50, 4.0),
        ("c", None, None, None),
    ]
    assert found["silos"][2]["reason"] == "it offers none"
    assert found["pooled"]["accuracy"] == pytest.approx(110 / 150)
    assert read_result(tmp_path / "run") == result
    assert [len(silo.students) for silo in silos[:2]] == [1, 1]
    sent = silos[0].students[0]
    stored = (tmp_path / "run/student.safetensors").read_bytes()
    network = network_of_bytes(sent.architecture, sent.classes, sent.image_shape, sent.width, sent.weights.tobytes())
    mine = network_of_bytes("convnet", 3, (1, 8, 8), 4, stored)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(network(images), mine(images))
    assert any("2 of 3 silos offer" in line for line in told)


def test_without_the_configurations_word_nobody_is_asked(tmp_path):
    silos = [JudgingSilo("a"), JudgingSilo("b")]
    result = distill(tiny_config(evaluation__held_out=False), LocalTransport(silos), tmp_path / "run")
    assert "federated_evaluation" not in result
    assert silos[0].students == []


def test_a_student_of_ones_own_cannot_be_sent_which_is_told_before_anything_is_asked(tmp_path):
    silos, told, asked = [JudgingSilo("a"), JudgingSilo("b")], [], []

    def tell(line):
        told.append(line)
        asked.append(len(silos[0].queries))

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    rules = config()
    result = distill(rules, LocalTransport(silos), tmp_path / "run", tell=tell, student=module)
    place = next(i for i, line in enumerate(told) if "no silo will evaluate the student" in line)
    assert asked[place] == 0
    assert "Sequential" in result["federated_evaluation"]["reason"]
    assert silos[0].students == []


FAULTS = {
    "refuses": (lambda q, n: RefusalCode.BUDGET, "refused (budget)"),
    "cannot": (lambda q, n: RefusalCode.NO_EVALUATION, "refused (no_evaluation)"),
    "too many right": (lambda q, n: EvaluationAnswer(q.query_id, 101, 0.0, 100, 4), "101 right images cannot be"),
    "below zero": (lambda q, n: EvaluationAnswer(q.query_id, -1, 0.0, 100, 4), "-1 right images cannot be"),
    "other noise": (lambda q, n: EvaluationAnswer(q.query_id, 80, 9.0, 100, 4), "another than it said before"),
    "more images": (lambda q, n: EvaluationAnswer(q.query_id, 80, 0.0, 10**9, 4), "another than it said before"),
    "another id": (lambda q, n: EvaluationAnswer("f" * 32, 80, 0.0, 100, 4), "no answer within"),
    "raises": (lambda q, n: 1 / 0, ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_silo_that_fails_or_lies_costs_its_own_number_and_no_run(tmp_path, fault):
    misbehave, why = FAULTS[fault]
    silos, told = [JudgingSilo("a"), JudgingSilo("b", misbehave=misbehave)], []
    over = "grid" if fault == "raises" else "local"
    if over == "grid":
        why = "refused (internal)"
    result = run(tmp_path / "run", silos, told=told, over=over, queries__deadline_s=9.0 if over == "grid" else 2.0)
    honest, other = result["federated_evaluation"]["silos"]
    assert (honest["right"], honest["reason"]) == (80, None)
    assert why in other["reason"]
    assert result["federated_evaluation"]["pooled"]["silos"] == 1
    assert any(line.startswith("b has not evaluated the student") for line in told)


def test_one_that_is_busy_or_failed_is_asked_again_under_the_same_id(tmp_path):
    once = JudgingSilo("a", misbehave=lambda q, n: RefusalCode.BUSY if n == 1 else None)
    result = run(tmp_path / "run", [once, JudgingSilo("b")])
    assert result["federated_evaluation"]["pooled"]["silos"] == 2
    assert len({query.query_id for query in once.students}) == 1


def test_a_silent_silo_is_waited_for_until_the_deadline_and_no_longer(tmp_path):
    silos = [JudgingSilo("a"), JudgingSilo("b", misbehave=lambda q, n: time.sleep(6.0))]
    begun = time.monotonic()
    result = run(tmp_path / "run", silos, over="grid", queries__deadline_s=3.0)
    assert time.monotonic() - begun < 30
    assert result["federated_evaluation"]["silos"][1]["reason"] == "no answer within 3 s"


def test_a_run_that_is_gone_on_with_asks_under_the_same_ids_and_nobody_charges_twice(tmp_path, monkeypatch):
    folder, silos = tmp_path / "run", [JudgingSilo("a"), JudgingSilo("b")]

    class Died(BaseException):
        pass

    def dies(query, count):
        raise Died

    silos[1].judge_misbehaves = dies
    with pytest.raises(Died):
        run(folder, silos)
    (kept,) = read_evaluations(folder)
    assert set(kept.ids) == {"a", "b"}  # on the disk before the first of them heard of one
    assert not (folder / "result.json").exists()
    silos[1].judge_misbehaves = lambda query, count: None
    result = run(folder, silos, resume=True)
    assert result["federated_evaluation"]["pooled"]["silos"] == 2
    assert [len(silo.judged) for silo in silos] == [1, 1]
    for silo in silos:
        assert len(silo.students) == 2
        assert len({(query.query_id, query.payload_hash) for query in silo.students}) == 1


def test_another_student_is_not_sent_again_by_itself(tmp_path):
    folder, told = tmp_path / "run", []
    silos = [JudgingSilo("a"), JudgingSilo("b")]
    run(folder, silos)
    (folder / "result.json").unlink()
    tree = json.loads((folder / "evaluations.json").read_text())
    tree["students"][0]["student"] = "0" * 64
    (folder / "evaluations.json").write_text(json.dumps(tree))
    result = run(folder, silos, resume=True, told=told)
    assert "weights differ" in result["federated_evaluation"]["reason"]
    assert any("delete evaluations.json" in line for line in told)
    assert [len(silo.students) for silo in silos] == [1, 1]


def test_a_file_of_an_earlier_version_held_a_single_student(tmp_path):
    run(tmp_path, [JudgingSilo("a"), JudgingSilo("b")])
    path = tmp_path / "evaluations.json"
    tree = json.loads(path.read_text())
    before = read_evaluations(tmp_path)
    path.write_text(json.dumps({"schema": 1, **tree["students"][0]}))
    assert read_evaluations(tmp_path) == before


def test_whatever_goes_wrong_the_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_requests, "write_evaluations", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    silos = [JudgingSilo("a"), JudgingSilo("b")]
    result = run(tmp_path / "run", silos)
    assert result["federated_evaluation"] == {"silos": [], "pooled": None, "reason": "it failed (OSError)"}
    assert silos[0].students == []


def test_the_pooled_estimates_standard_error_is_that_of_sample_and_noise():
    """Two-sided: over 2000 draws of three silos, the stated error is within 8 % of the one that is seen."""
    rng, share, silos = np.random.default_rng(1), 0.8, ((100, 0.0), (400, 12.0), (50, 3.0))
    found = []
    for _ in range(2000):
        entries = []
        for number, (images, sigma) in enumerate(silos):
            right = int(rng.binomial(images, share) + np.rint(rng.normal(0, sigma)))
            entries.append(silo_evaluation(f"{number}", EvaluationAnswer("0" * 32, right, sigma, images, 1), None))
        found.append(pooled(entries))
    seen = np.std([one["accuracy"] for one in found])
    stated = np.mean([one["standard_error"] for one in found])
    assert 0.92 < stated / seen < 1.08
    assert found[0]["images"] == 550
    assert math.isclose(np.mean([one["accuracy"] for one in found]), share, abs_tol=0.003)


def test_a_silo_that_does_not_tell_how_many_images_it_has_is_shown_and_not_pooled():
    entry = silo_evaluation("a", EvaluationAnswer("0" * 32, 93, 2.0, None, 1), None)
    assert (entry["right"], entry["accuracy"], entry["standard_error"]) == (93, None, None)
    assert pooled([entry]) is None
