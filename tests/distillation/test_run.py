# SPDX-License-Identifier: Apache-2.0
"""Whole runs over fake silos: what is left behind, what a crash costs, and how faults are told."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation
from support.tiny_runs import tiny_config as config

from fedcpsc.config import load_config
from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.transport import LocalTransport, Lost, Reply
from fedcpsc.errors import ConfigError, FederationError, RefusalCode, RunError
from fedcpsc.protocol.messages import AnswerForm, ClassReport
from fedcpsc.runs.checkpoint import read_state
from fedcpsc.runs.config_changes import changed_values
from fedcpsc.runs.read import gather


def silos(count=2, **options):
    return [FakeSilo(f"silo-{i}", **options) for i in range(count)]


def test_a_run_leaves_everything_it_promises(tmp_path):
    fakes = silos()
    facts = {f"silo-{i}": SiloFacts(100 + i, brightness_probabilities) for i in range(2)}
    result = distill(config(), LocalTransport(fakes), tmp_path / "run", evaluation=evaluation(), silo_facts=facts)
    run = tmp_path / "run"
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "result.json",
        "student.safetensors",
        "generator.safetensors",
        "samples.png",
        "curve.png",
        "bank/journal.jsonl",
        "checkpoint/state.pt",
    ):
        assert (run / name).stat().st_size > 0, name
    assert json.loads((run / "result.json").read_text()) == result
    assert changed_values(load_config(run / "config.yaml"), config()) == {}  # but for what is left to the machine
    assert result["answers_per_silo"] == 120
    assert [s["answers"] for s in result["silos"]] == [120, 120]
    assert [s["train_size"] for s in result["silos"]] == [100, 101]
    assert result["ensemble"]["accuracy"] == 1.0
    assert {f.left for f in fakes} == {10_000 - 120}, "every image is paid for once"
    assert result["bytes_sent"] > 2 * 120 * 64
    assert result["silos"][0]["dp"] is False


def test_no_image_is_ever_asked_twice(tmp_path):
    fakes = silos(1)
    distill(config(silos__count=1), LocalTransport(fakes), tmp_path / "run")
    asked = np.concatenate([query.images for query in fakes[0].queries])
    assert len(asked) == 120
    assert len({image.tobytes() for image in asked}) == 120


class Dies(Exception):
    pass


def killed_after(count, by=Dies):
    """Fake silos whose process dies with the server's at the n-th query."""
    seen = {"n": 0}

    def misbehave(query, so_far):
        seen["n"] += 1
        if seen["n"] == count:
            raise by

    return misbehave


@pytest.mark.parametrize("at", [1, 2, 3, 5, 7])
def test_an_interrupted_run_resumed_gives_the_very_same_student(tmp_path, at):
    whole = silos()
    distill(config(), LocalTransport(whole), tmp_path / "whole")

    fakes = silos(misbehave=killed_after(at))
    with pytest.raises(Dies):
        distill(config(), LocalTransport(fakes), tmp_path / "cut")
    distill(config(), LocalTransport(fakes), tmp_path / "cut", resume=True)

    first, second = load_file(tmp_path / "whole/student.safetensors"), load_file(tmp_path / "cut/student.safetensors")
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert [f.left for f in fakes] == [f.left for f in whole], "nothing was paid twice"


def test_a_run_of_an_earlier_version_goes_on_with_lines_of_both_forms_in_one_file(tmp_path):
    fakes = silos(misbehave=killed_after(5))
    with pytest.raises(Dies):
        distill(config(), LocalTransport(fakes), tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines
    for silo in (silo for line in lines for silo in line["silos"].values()):
        silo |= {"left": silo.pop("answers_left"), "gone": silo.pop("stopped") or ""}
    older = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(older)

    distill(config(), LocalTransport(fakes), tmp_path, resume=True)
    assert path.read_text().startswith(older)
    assert '"answers_left"' in path.read_text().removeprefix(older)
    for line in gather(tmp_path).rounds:
        assert {frozenset(silo) for silo in line["silos"].values()} == {
            frozenset({"answers", "answers_left", "stopped"})
        }


@pytest.mark.parametrize("by", [KeyboardInterrupt, SystemExit])  # SIGINT here, and as Flower's ServerApp takes it
def test_a_run_told_to_stop_has_its_last_round_on_the_disk_and_goes_on_from_there(tmp_path, by):
    fakes = silos(misbehave=killed_after(5, by))
    with pytest.raises(by):
        distill(config(), LocalTransport(fakes), tmp_path / "run")
    assert read_state(tmp_path / "run/checkpoint")["ends"] == [1, 2]
    assert [path.name for path in (tmp_path / "run").rglob("*.partial")] == []
    result = distill(config(), LocalTransport(fakes), tmp_path / "run", resume=True)
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]
    assert {fake.left for fake in fakes} == {10_000 - 120}


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    fakes = silos()
    first = distill(config(), LocalTransport(fakes), tmp_path / "run", evaluation=evaluation())
    again = distill(config(), LocalTransport(fakes), tmp_path / "run", evaluation=evaluation(), resume=True)
    assert first["student"] == again["student"]
    assert {f.left for f in fakes} == {10_000 - 120}


def test_two_runs_are_never_mixed(tmp_path):
    distill(config(), LocalTransport(silos()), tmp_path / "run")
    with pytest.raises(RunError, match="holds a run already.*--resume"):
        distill(config(), LocalTransport(silos()), tmp_path / "run")
    with pytest.raises(RunError, match=r"student\.width: 4 -> 6"):
        distill(config(student__width=6), LocalTransport(silos()), tmp_path / "run", resume=True)


class Lossy(LocalTransport):
    """Loses the first reply to every query: the silo answered and charged, the server never hears."""

    def __init__(self, targets):
        super().__init__(targets)
        self.lost = set()

    def receive(self, timeout_s):
        replies = []
        for reply in super().receive(timeout_s):
            key = (reply.silo, reply.content.query_id)
            first = key not in self.lost
            self.lost.add(key)
            replies.append(Reply(reply.silo, Lost(key[1], "ttl"), 0.0) if first else reply)
        return replies


def test_lost_replies_are_asked_for_again_under_the_same_id(tmp_path):
    fakes = silos()
    result = distill(config(), Lossy(fakes), tmp_path / "run")
    assert result["answers_per_silo"] == 120
    assert {f.left for f in fakes} == {10_000 - 120}


def test_a_silo_whose_budget_ends_is_left_alone_and_the_rest_go_on(tmp_path):
    told = []
    fakes = [FakeSilo("silo-0", budget=70), FakeSilo("silo-1")]
    result = distill(config(), LocalTransport(fakes), tmp_path / "run", tell=told.append)
    assert [s["answers"] for s in result["silos"]] == [60, 120]
    assert result["silos"][0]["stopped"] == "its budget is spent"
    assert result["silos"][0]["refusals"] == {"budget": 1}
    assert told == ["silo-0 is no longer asked: its budget is spent"]


def test_a_busy_silo_is_asked_again(tmp_path):
    fakes = silos(misbehave=lambda query, count: RefusalCode.BUSY if count % 2 else None)
    result = distill(config(), LocalTransport(fakes), tmp_path / "run")
    assert [s["answers"] for s in result["silos"]] == [120, 120]


class Resting(LocalTransport):
    """Notes how long the server rested with nothing in flight, and does not sleep."""

    def __init__(self, targets):
        super().__init__(targets)
        self.rested_s = 0.0

    def receive(self, timeout_s):
        if not self._waiting:
            self.rested_s += timeout_s
            return []
        return super().receive(timeout_s)

    def clock(self):
        return time.process_time() + self.rested_s


def out_of_service(first, last):
    """A gatekeeper that is down from its first-th query to its last-th; what it charged for before stays charged."""
    return lambda query, count: RefusalCode.INTERNAL if first <= count <= last else None


def test_a_silo_that_is_out_of_service_for_a_while_is_asked_again_and_loses_nothing(tmp_path):
    told = []
    fakes = [FakeSilo("silo-0"), FakeSilo("silo-1", misbehave=out_of_service(2, 7))]
    transport = Resting(fakes)
    settings = config(queries__deadline_s=1e3)
    result = distill(settings, transport, tmp_path / "run", tell=told.append, clock=transport.clock)
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]
    assert result["silos"][1]["refusals"] == {"internal": 6}
    assert 28 < transport.rested_s < 40, "at once, then after ever longer rests"
    assert told == []
    assert fakes[1].left == 10_000 - 120


def test_a_silo_that_stays_out_of_service_is_left_after_some_minutes(tmp_path):
    told = []
    fakes = [FakeSilo("silo-0"), FakeSilo("silo-1", misbehave=out_of_service(2, 10**6))]
    transport = Resting(fakes)
    settings = config(queries__deadline_s=1e3)
    result = distill(settings, transport, tmp_path / "run", tell=told.append, clock=transport.clock)
    assert [silo["answers"] for silo in result["silos"]] == [120, 30]
    assert 240 < transport.rested_s < 270
    assert len(told) == 1
    assert "silo-1 is no longer asked: refused (internal)" in told[0]


def test_silos_that_refuse_everything_end_the_run_with_their_code(tmp_path):
    fakes = silos(misbehave=lambda query, count: RefusalCode.FORM)
    with pytest.raises(FederationError, match="no silo answered.*form"):
        distill(config(), LocalTransport(fakes), tmp_path / "run")


def test_a_batch_larger_than_a_query_may_be_is_split(tmp_path):
    fakes = silos(images_per_query=7)
    result = distill(config(), LocalTransport(fakes), tmp_path / "run")
    assert max(len(query.images) for query in fakes[0].queries) == 7
    assert result["answers_per_silo"] == 120


@pytest.mark.parametrize(
    ("changes", "fakes", "words"),
    [
        ({}, lambda: silos(1), "at least 2 of 2 must join within 0.1 s"),
        ({}, lambda: [FakeSilo("a", classes=3), FakeSilo("b", classes=4)], "classes=.*same at every silo"),
        ({}, lambda: [FakeSilo("a"), FakeSilo("b", image_shape=(1, 6, 6))], "image_shape=.*same at every silo"),
        ({"queries__form": "label"}, silos, "silo-0 offers .*probabilities"),
        ({"aggregation__rule": "class_prior_log"}, silos, "share no class counts"),
    ],
)
def test_federations_that_do_not_fit_are_refused_with_a_remedy(tmp_path, changes, fakes, words):
    with pytest.raises(FederationError, match=words):
        distill(config(**changes), LocalTransport(fakes()), tmp_path / "run")


def test_a_quorum_may_begin_without_the_missing(tmp_path):
    result = distill(config(queries__quorum=0.5), LocalTransport(silos(1)), tmp_path / "run")
    assert result["not_joined"] == 1


def test_class_reports_weigh_the_silos(tmp_path):
    fakes = [
        FakeSilo("silo-0", class_report=ClassReport((9.0, 1.0, 0.0))),
        FakeSilo("silo-1", class_report=ClassReport((0.0, 5.0, 5.0))),
    ]
    result = distill(config(aggregation__rule="class_prior_log"), LocalTransport(fakes), tmp_path / "run")
    assert result["ensemble"]["rule"] == "class_prior_log"


def test_unknown_priors_are_named(tmp_path):
    with pytest.raises(ConfigError, match="use 'smooth'"):
        distill(config(synthesis__prior={"smoth": 1.0}), LocalTransport(silos()), tmp_path / "run")


class OneClass(FakeSilo):
    """A teacher that calls everything class 0."""

    def answer(self, query):
        answer = super().answer(query)
        answer.values[:] = np.array([255, 0, 0], np.uint8)
        return answer


def test_a_bank_that_collapses_raises_the_alarm_and_asks_about_the_prior(tmp_path):
    settings = {
        "silos__count": 1,
        "synthesis__prior_share": 0.3,
        "synthesis__candidates": 1,
        "synthesis__moments": None,
    }
    distill(config(**settings), LocalTransport([OneClass("silo-0")]), tmp_path / "collapsed")
    distill(config(**settings), LocalTransport(silos(1)), tmp_path / "healthy")

    def lines(name):
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    def prior_share(name):
        y = np.fromfile(tmp_path / name / "bank/pseudo.i64", np.int64)[-30:]  # the last round's
        return (y == -1).mean()

    assert all(line["alarm"] for line in lines("collapsed"))
    assert not any(line["alarm"] for line in lines("healthy"))
    assert prior_share("healthy") == pytest.approx(0.3)
    assert prior_share("collapsed") == pytest.approx(0.8)


class Deaf(LocalTransport):
    """One silo takes queries and never replies."""

    def __init__(self, targets, deaf):
        super().__init__(targets)
        self.deaf = deaf

    def send(self, queries):
        super().send({silo: query for silo, query in queries.items() if silo != self.deaf})


def test_a_silo_that_never_replies_is_given_up_at_the_deadline(tmp_path):
    told = []
    result = distill(config(), Deaf(silos(), "silo-1"), tmp_path / "run", tell=told.append)
    assert [s["answers"] for s in result["silos"]] == [120, 0]
    assert result["silos"][1]["stopped"] == "no answer within 0.2 s"
    assert told == ["silo-1 is no longer asked: no answer within 0.2 s"]
    assert 0.2 <= result["seconds"]["waiting"] < 2


def test_a_silo_that_answers_something_else_is_left(tmp_path):
    fakes = silos()
    fakes[1].answer = lambda query: replace(fakes[0].answer(query), values=np.zeros((1, 3), np.uint8))
    told = []
    result = distill(config(), LocalTransport(fakes), tmp_path / "run", tell=told.append)
    assert result["silos"][1]["answers"] == 0
    assert "not what was asked" in told[0]


def test_each_silo_is_asked_for_the_best_it_offers_and_the_result_tells_it(tmp_path):
    fakes = [
        FakeSilo("silo-0", forms=(AnswerForm.LABEL, AnswerForm.PROBABILITIES), noise_sigma=0.2),
        FakeSilo("silo-1", forms=(AnswerForm.LABEL,)),
    ]
    result = distill(config(queries__form="best"), LocalTransport(fakes), tmp_path / "run", evaluation=evaluation())
    assert [{query.form for query in fake.queries} for fake in fakes] == [
        {AnswerForm.PROBABILITIES},
        {AnswerForm.LABEL},
    ]
    assert [(silo["form"], silo["noise_sigma"]) for silo in result["silos"]] == [("probabilities", 0.2), ("label", 0.0)]
    assert result["form"] == "probabilities, label"
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]


def test_one_form_for_all_is_told_as_one(tmp_path):
    fakes = silos(forms=(AnswerForm.PROBABILITIES, AnswerForm.LABEL))
    assert distill(config(queries__form="label"), LocalTransport(fakes), tmp_path / "run")["form"] == "label"
