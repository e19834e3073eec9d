# SPDX-License-Identifier: Apache-2.0
"""Rounds that overlap: the same student whatever the clock says, less waiting, and silos that misbehave."""

import itertools
import json
import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config as config

import fedcpsc.distillation.loop
from benchmarks.overlap import Clock, SlowTeachers
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.steps import BankReader, fit, make_committee
from fedcpsc.distillation.synthesis import synthesise
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.distillation.tones import find_tones, tones_of_round
from fedcpsc.distillation.transport import LocalTransport, Lost, Reply
from fedcpsc.errors import RefusalCode
from fedcpsc.protocol.messages import AnswerForm, Query, decode_answers
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.timeline import read_timeline
from fedcpsc.seeding import derive_seed

OVERLAP = {"queries__rounds": 12, "queries__deadline_s": 1e4, "queries__ahead": 2, "queries__in_flight": 2}
FIT_S = 0.5  # of the fake clock: what ten fitting steps take


class Far(SlowTeachers):
    """Far-away silos on a clock that only they move: between two looks for replies the server worked FIT_S."""

    def __init__(self, fakes, needs_s=lambda silo, number: 3.0, idle_s=0.0):
        self.clock = Clock(work_s=lambda: 0.0)
        super().__init__(fakes, self.clock, needs_s, idle_s)

    def receive(self, timeout_s):
        if timeout_s == 0:
            self.clock.skip(FIT_S)
        return super().receive(timeout_s)


def silos(count=2, **options):
    return [FakeSilo(f"silo-{i}", **options) for i in range(count)]


def run(tmp_path, name, transport, *, resume=False, tell=lambda line: None, **changes):
    clock = {"clock": transport.clock} if isinstance(transport, Far) else {}
    settings = config(**{**OVERLAP, **changes})
    return distill(settings, transport, tmp_path / name, resume=resume, tell=tell, **clock)


def same_student(tmp_path, one, other):
    first, second = (load_file(tmp_path / name / "student.safetensors") for name in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def plain_loop(folder, settings, fakes):
    """The rounds one after the other, as simply as they can be written: the student's weights."""
    by_name = {fake.description.silo: fake for fake in fakes}
    bank, device = AnswerBank(folder, (1, 8, 8), 3, sorted(by_name)), torch.device("cpu")
    reader, keeper = BankReader(bank, device), TargetKeeper(bank, settings.aggregation, None)
    members = make_committee(settings.student, 3, (1, 8, 8), settings.seed, device)
    rounds, none = settings.queries.rounds, np.zeros(0, np.int64)
    each = settings.queries.answers_per_silo // rounds
    steps = settings.steps_per_round
    for r in range(rounds):
        images, y, _, _ = synthesise(
            settings.synthesis, [m.network for m in members], each, round_index=r, rounds=rounds, classes=3,
            image_shape=(1, 8, 8), seed=derive_seed(settings.seed, "synthesis"), device=device,
            tones=tones_of_round(RoundPlan(settings), r, find_tones(RoundPlan(settings), bank, r)),
        )  # fmt: skip
        pool, newest = bank.answered_rows(range(r)), bank.answered_rows(range(r - 1, r))
        batch = bank.add_batch(r, images, y)
        for index, member in enumerate(members if len(pool) else []):
            share = settings.student.fresh_share if index == 0 else 0.0
            seed = derive_seed(settings.seed, "fit", r, index, 0)
            fit(member, settings.student, reader, pool, newest, steps, seed, fresh_share=share)
        for name, fake in by_name.items():
            answer = fake.answer(Query(batch.query_id, AnswerForm.PROBABILITIES, images))
            bank.add_answers(batch.query_id, name, decode_answers(answer))
        keeper.refresh()
    for done in range(settings.final_steps):  # twenty parts or fewer: here of one step each
        seed, cosine = derive_seed(settings.seed, "final", done), (done, settings.final_steps)
        fit(members[0], settings.student, reader, bank.answered_rows(), none, 1, seed, cosine_from=cosine)
    return members[0].network.state_dict()


def test_without_overlap_the_rounds_are_the_plain_loop_bit_for_bit(tmp_path):
    settings = config(output__alarm_entropy=0.0)
    distill(settings, LocalTransport(silos()), tmp_path / "run")
    expected, got = plain_loop(tmp_path / "bank", settings, silos()), load_file(tmp_path / "run/student.safetensors")
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


@pytest.mark.parametrize("ahead", [0, 2, 5])
def test_when_answers_come_changes_nothing(tmp_path, ahead):
    chance = random.Random(4)
    run(tmp_path, "at-once", LocalTransport(silos()), queries__ahead=ahead)
    uneven = Far(silos(), lambda silo, number: chance.uniform(0, 20))
    run(tmp_path, "uneven", uneven, queries__ahead=ahead)
    assert same_student(tmp_path, "at-once", "uneven")
    assert uneven.most_in_flight == min(2, ahead + 1)


def test_what_is_seen_later_makes_another_student(tmp_path, whole):
    run(tmp_path, "waited", LocalTransport(silos()), queries__ahead=0)
    assert not same_student(tmp_path, "waited", whole)


class Dies(Exception):
    pass


def killed_after(count):
    """Fake silos whose process dies with the server's at the n-th query."""
    seen = itertools.count(1)

    def misbehave(query, so_far):
        if next(seen) == count:
            raise Dies

    return misbehave


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run at the pace of a deployment that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, "run", Far(silos()))
    return folder / "run"


@pytest.mark.parametrize("at", [1, 4, 9, 16, 24])
def test_a_run_cut_while_several_queries_are_out_gives_the_very_same_student(tmp_path, whole, at):
    cut = silos(misbehave=killed_after(at))
    with pytest.raises(Dies):
        run(tmp_path, "cut", Far(cut))
    run(tmp_path, "cut", Far(cut), resume=True)
    assert same_student(tmp_path, whole, "cut")
    assert [fake.left for fake in cut] == [10_000 - 120] * 2, "nothing was paid twice"


def test_slow_silos_get_fewer_and_larger_queries_and_the_server_waits_less(tmp_path):
    waited = run(tmp_path, "waited", Far(silos()), queries__ahead=0, queries__in_flight=1)
    transport = Far(silos(images_per_query=25))
    grouped = run(tmp_path, "grouped", transport, queries__waiting_goal=0.05)
    sizes = [len(query.images) for query in transport._by_silo["silo-0"].queries]
    assert (sizes[0], max(sizes), sum(sizes)) == (10, 20, 120)
    assert sizes == sorted(sizes)
    shares = [result["seconds"]["waiting_share_after_first_round"] for result in (waited, grouped)]
    assert shares[1] < 0.6 * shares[0]


@pytest.mark.parametrize("at", [4, 8])
def test_groups_are_the_same_after_a_crash(tmp_path, monkeypatch, at):
    monkeypatch.setattr(fedcpsc.distillation.loop, "next_size", lambda size, **_: min(2 * size, 3))
    run(tmp_path, "whole", Far(silos()))
    fakes = silos(misbehave=killed_after(at))
    with pytest.raises(Dies):
        run(tmp_path, "cut", Far(fakes))
    run(tmp_path, "cut", Far(fakes), resume=True)
    assert same_student(tmp_path, "whole", "cut")
    assert sorted({len(query.images) for query in fakes[0].queries}) == [10, 20, 30]


def test_a_busy_silo_gets_fewer_queries_at_once(tmp_path):
    fakes = silos()
    fakes[0].misbehave = lambda query, count: RefusalCode.BUSY if count == 2 else None
    transport = Far(fakes)
    result = run(tmp_path, "run", transport)
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]
    last = [s for s in read_timeline(tmp_path / "run/timeline.jsonl") if s.silo == "silo-0"][4:]
    assert all(one.end <= other.begin for one, other in itertools.pairwise(last)), "one at a time from then on"


def outcomes(result):
    return [silo["replies"] for silo in result["silos"]]


def test_a_silo_with_extra_latency_is_waited_for_and_answers_all(tmp_path):
    result = run(tmp_path, "run", Far(silos(), lambda silo, number: 8.0 if silo == "silo-1" else 3.0))
    assert outcomes(result) == [{"answer": 12}, {"answer": 12}]
    assert [silo["stopped"] for silo in result["silos"]] == [None, None]


class Lossy(Far):
    """Half of silo-1's replies never reach the server."""

    def receive(self, timeout_s):
        replies = []
        for reply in super().receive(timeout_s):
            lost = reply.silo == "silo-1" and self.chance.random() < 0.5
            replies.append(Reply(reply.silo, Lost(reply.content.query_id, "ttl"), reply.seconds) if lost else reply)
        return replies

    chance = random.Random(2)


def test_a_silo_that_drops_half_of_its_replies_is_asked_again_and_pays_once(tmp_path):
    fakes = silos()
    result = run(tmp_path, "run", Lossy(fakes))
    steady, lossy = outcomes(result)
    assert steady == {"answer": 12}
    assert lossy["answer"] == 12
    assert lossy["lost"] >= 4
    assert fakes[1].left == 10_000 - 120


def test_a_silo_that_leaves_for_good_is_given_up_and_the_result_says_what_it_gave(tmp_path):
    told = []
    gone = Far(silos(), lambda silo, number: math.inf if silo == "silo-1" and number == 5 else 3.0)
    result = run(tmp_path, "run", gone, tell=told.append, queries__deadline_s=60)
    steady, left = result["silos"]
    assert (steady["answers"], steady["stopped"]) == (120, None)
    assert (left["answers"], left["stopped"]) == (50, "no answer within 60 s")
    assert left["replies"] == {"answer": 5, "no reply": 2}
    assert told == ["silo-1 is no longer asked: no answer within 60 s"]
    assert 60 <= result["seconds"]["waiting"] < 100
    assert steady["weight"] + left["weight"] == pytest.approx(1)
    assert left["weight"] == pytest.approx(50 / 120 / 2, abs=1e-4)


def test_a_silo_that_comes_back_is_used_late(tmp_path):
    slow = Far(silos(), lambda silo, number: 30.0 if silo == "silo-1" and number == 3 else 3.0)
    result = run(tmp_path, "run", slow, queries__deadline_s=20, queries__quorum=0.5)
    steady, late = result["silos"]
    assert steady["replies"] == {"answer": 12}
    assert late["stopped"] is None
    assert late["answers"] == 120
    assert late["replies"]["late answer"] >= 1


def test_every_query_and_all_waiting_is_on_the_time_line(whole):
    result = json.loads((whole / "result.json").read_text())
    stretches = read_timeline(whole / "timeline.jsonl")
    queries = [s for s in stretches if s.what == "query"]
    assert [sum(q.silo == f"silo-{i}" for q in queries) for i in range(2)] == [12, 12]
    assert {(q.images, q.outcome) for q in queries} == {(10, "answer")}
    assert all(q.seconds >= 3 for q in queries)
    assert {s.what for s in stretches} == {
        "query", "waiting", "synthesis", "fit", "targets", "checkpoint", "evaluation", "final",
    }  # fmt: skip
    waited = sum(s.seconds for s in stretches if s.what == "waiting")
    assert result["seconds"]["waiting"] == pytest.approx(waited, abs=0.1)
    own = [s for s in stretches if s.what != "query"]
    assert all(one.end <= other.begin + 1e-6 for one, other in itertools.pairwise(own)), "one thing at a time"
    metrics = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["waiting_s"] == result["seconds"]["waiting"]
