# SPDX-License-Identifier: Apache-2.0
"""Each silo is asked in queries of its own size: the others' rounds, the student and the bill stay the same."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config

from benchmarks.overlap import Clock, SlowTeachers
from fedcpsc.distillation.held_answers import HeldAnswers
from fedcpsc.distillation.parts import parts_of
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport, Lost
from fedcpsc.errors import RefusalCode
from fedcpsc.protocol.messages import Query, RecipeQuery
from fedcpsc.protocol.query_size import images_of_bytes
from fedcpsc.recipes.drawing import draw_images
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_journal import Batch
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.timeline import read_timeline

SILOS = 5


def settings(**changes):
    """The deadline is of no concern, however busy the machine."""
    return tiny_config(**{"silos__count": SILOS, "queries__deadline_s": 1e3, **changes})


def silos(last=64, count=SILOS, **options):
    """The last of them takes another number of images at once."""
    sizes = [64] * (count - 1) + [last]
    return [FakeSilo(f"silo-{i}", images_per_query=size, **options) for i, size in enumerate(sizes)]


def quick_clock():
    """A clock on which the server's work takes next to nothing."""
    ticks = itertools.count()
    return Clock(work_s=lambda: 1e-6 * next(ticks))


def sizes_of(fake):
    return [len(query.images) for query in fake.queries]


def same_student(one, other):
    first, second = (load_file(folder / "student.safetensors") for folder in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


@given(st.data(), st.integers(1, 60), st.integers(1, 70), st.integers(0, 40))
def test_parts_are_what_is_missing_and_keep_their_ids_whatever_was_answered(data, count, most, first):
    batch = Batch("0" * 32, 3, first, count)
    parts = parts_of(batch, "a", most)
    assert [row for part in parts for row in range(part.rows.start, part.rows.stop)] == list(
        range(first, first + count)
    )
    assert [part.count for part in parts] == [most] * (count // most) + [count % most] * (count % most > 0)
    assert len({part.query_id for part in parts}) == len(parts)
    assert (parts[0].query_id == batch.query_id) == parts[0].is_whole == (count <= most)
    answered = data.draw(st.lists(st.sampled_from(parts), unique_by=lambda part: part.query_id))
    for part in answered:
        batch.add_part("a", part.rows)
    left = [part for part in parts if part not in answered]
    assert parts_of(batch, "a", most) == left
    assert parts_of(batch, "b", most) == parts
    assert (not left) == ("a" in batch.answered)


def test_another_size_asks_for_nothing_that_was_answered():
    batch = Batch("0" * 32, 0, 10, 20)
    batch.add_part("a", slice(16, 22))
    asked = [(part.rows.start, part.rows.stop) for part in parts_of(batch, "a", 4)]
    assert asked == [(10, 14), (14, 16), (22, 26), (26, 30)]


def test_a_query_of_sixteen_megabytes_holds_a_hundred_photographs():
    assert images_of_bytes(16, (3, 224, 224)) == 106
    assert 106 * 3 * 224 * 224 + 4096 <= 16e6
    assert images_of_bytes(16, (1, 28, 28)) > 20_000
    assert images_of_bytes(0.001, (3, 224, 224)) == 1


@pytest.mark.parametrize("small", [1, 7, 29])
def test_one_silo_of_small_queries_changes_nothing_for_the_others_nor_for_the_student(tmp_path, small):
    alike, unlike = silos(), silos(small)
    distill(settings(), LocalTransport(alike), tmp_path / "alike")
    result = distill(settings(), LocalTransport(unlike), tmp_path / "unlike")
    assert [sizes_of(fake) for fake in unlike[:-1]] == [[30] * 4] * (SILOS - 1)
    assert max(sizes_of(unlike[-1])) == small
    asked = [np.concatenate([query.images for query in fake.queries]) for fake in (unlike[0], unlike[-1])]
    np.testing.assert_array_equal(*asked)
    assert same_student(tmp_path / "alike", tmp_path / "unlike")
    assert [silo["answers"] for silo in result["silos"]] == [120] * SILOS
    assert {fake.left for fake in unlike} == {10_000 - 120}, "every image is paid for once"
    assert result["silos"][-1]["replies"] == {"answer": len(unlike[-1].queries)}


def test_the_others_queries_take_no_longer_beside_a_silo_of_single_images(tmp_path):
    """Silos at a distance on a clock of their own: what the others' queries took, from first to last of each round."""
    spent = {}
    for small in (64, 1):
        clock = quick_clock()
        transport = SlowTeachers(silos(small), clock, lambda silo, number: 3.0)
        folder = tmp_path / str(small)
        distill(settings(queries__deadline_s=1e4), transport, folder, clock=clock)
        spans = [s for s in read_timeline(folder / "timeline.jsonl") if s.what == "query" and s.silo != "silo-4"]
        assert {s.outcome for s in spans} == {"answer"}
        by_round = [[s for s in spans if s.round == number] for number in range(1, 5)]
        spent[small] = sum(max(s.end for s in own) - min(s.begin for s in own) for own in by_round)
    assert spent[64] == pytest.approx(4 * 3.0)
    assert spent[1] <= 1.1 * spent[64]


def test_the_others_rounds_take_no_longer_where_the_run_need_not_wait_for_a_silo_of_single_images(tmp_path):
    """From the first query of a round to the first of the next, after the one deadline that it costs."""
    lengths = {}
    for small in (64, 1):
        clock = quick_clock()
        transport = SlowTeachers(silos(small), clock, lambda silo, number: 3.0)
        folder = tmp_path / str(small)
        changes = {"queries__deadline_s": 10, "queries__quorum": 0.8, "queries__rounds": 8}
        distill(settings(**changes, queries__answers_per_silo=240), transport, folder, clock=clock)
        spans = [s for s in read_timeline(folder / "timeline.jsonl") if s.what == "query" and s.silo != "silo-4"]
        begun = [min(s.begin for s in spans if s.round == number) for number in range(1, 9)]
        lengths[small] = [after - before for before, after in itertools.pairwise(begun)]
    assert lengths[64] == pytest.approx([3.0] * 7, abs=0.5)
    assert lengths[1][0] <= 10.5, "one deadline"
    assert sum(lengths[1][1:]) <= 1.1 * sum(lengths[64][1:])


def test_a_run_that_need_not_wait_for_a_slow_silo_of_single_images_waits_for_one_deadline(tmp_path):
    waited = {}
    for small in (64, 1):
        clock = quick_clock()
        transport = SlowTeachers(silos(small), clock, lambda silo, number: 3.0)
        told = []
        result = distill(
            settings(queries__deadline_s=20, queries__quorum=0.8), transport, tmp_path / str(small), clock=clock,
            tell=told.append,
        )  # fmt: skip
        waited[small] = result["seconds"]["waiting"]
        assert [silo["answers"] for silo in result["silos"][:-1]] == [120] * (SILOS - 1)
    assert waited[1] <= waited[64] + 20 + 3
    assert told == ["silo-4 is not waited for until it replies: no answer within 20 s"]
    assert 0 < result["silos"][-1]["answers"] < 120, "what came of it is banked"
    assert read_bank(tmp_path / "1/bank").answers_of("silo-4") == result["silos"][-1]["answers"]


def test_a_query_is_cut_by_its_bytes_too(tmp_path):
    fakes = silos()
    distill(settings(queries__max_megabytes=0.005), LocalTransport(fakes), tmp_path / "cut")
    assert {max(sizes_of(fake)) for fake in fakes} == {(5000 - 4096) // 64}
    distill(settings(), LocalTransport(silos()), tmp_path / "whole")
    assert same_student(tmp_path / "whole", tmp_path / "cut")


class Dies(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 17, 18, 30])
def test_a_run_cut_amid_a_batch_and_resumed_gives_the_very_same_student_and_pays_once(tmp_path, monkeypatch, at):
    monkeypatch.setattr("fedcpsc.distillation.held_answers._MOST", 3)
    changes = {"queries__ahead": 2, "queries__in_flight": 2}
    distill(settings(**changes), LocalTransport(silos()), tmp_path / "whole")
    fakes, seen = silos(4), itertools.count(1)

    def misbehave(query, so_far):
        if next(seen) == at:
            raise Dies

    fakes[-1].misbehave = misbehave
    with pytest.raises(Dies):
        distill(settings(**changes), LocalTransport(fakes), tmp_path / "cut")
    before = read_bank(tmp_path / "cut/bank").answers_of("silo-4")
    fakes[-1].queries.clear()
    distill(settings(**changes), LocalTransport(fakes), tmp_path / "cut", resume=True)
    assert same_student(tmp_path / "whole", tmp_path / "cut")
    assert {fake.left for fake in fakes} == {10_000 - 120}, "nothing was paid twice"
    assert sum(sizes_of(fakes[-1])) == 120 - before, "what was banked is not asked again"


def test_what_a_silo_answered_of_a_batch_before_its_budget_ended_is_used(tmp_path):
    fakes = [*silos(count=2)[:1], FakeSilo("silo-1", images_per_query=7, budget=50)]
    result = distill(settings(silos__count=2), LocalTransport(fakes), tmp_path)
    assert result["silos"][1]["stopped"] == "its budget is spent"
    assert result["silos"][1]["answers"] == 50 - fakes[1].left == 30 + 16
    bank = read_bank(tmp_path / "bank")
    batch = bank.batches[1]
    answers, given_by = bank.answers(batch)
    assert given_by.sum(1).tolist() == [30, 16]
    both = given_by[1]
    np.testing.assert_allclose(bank.targets[batch.rows][both], answers[:, both].mean(0), atol=1e-6)
    np.testing.assert_allclose(bank.targets[batch.rows][~both], answers[0, ~both], atol=1e-6)


def test_a_silo_that_fails_in_every_query_costs_one_deadline_in_all(tmp_path):
    fakes = silos()
    fakes[-1].misbehave = lambda query, count: RefusalCode.INTERNAL
    clock = quick_clock()
    told = []
    result = distill(
        settings(queries__deadline_s=20, queries__quorum=0.6, queries__answers_per_silo=120, queries__rounds=12),
        SlowTeachers(fakes, clock, lambda silo, number: 0.1), tmp_path, clock=clock, tell=told.append,
    )  # fmt: skip
    assert result["seconds"]["waiting"] <= 20 + 12 * 0.2 + 1
    assert [silo["answers"] for silo in result["silos"]] == [120] * (SILOS - 1) + [0]
    assert told == ["silo-4 is not waited for until it replies: no answer within 20 s"]


class Losing(SlowTeachers):
    """Loses every reply of silos that "lose"; the others' come."""

    def receive(self, timeout_s):
        replies = super().receive(timeout_s)
        return [
            replace(reply, content=Lost(reply.content.query_id, "ttl")) if reply.silo in LOSING else reply
            for reply in replies
        ]


LOSING: set[str] = set()
FAILURES = ("silence", "lost", "internal", "out_of_service", "busy")


def failing(monkeypatch, clock, how, since):
    """Five silos, of which the last fails so from its `since`-th query on, and the way to them."""
    fakes = silos()
    never = float("inf")
    needs = (lambda silo, number: never if silo == "silo-4" and number >= since else 0.1) if how == "silence" else None
    transport = (Losing if how == "lost" else SlowTeachers)(fakes, clock, needs or (lambda silo, number: 0.1))
    monkeypatch.setattr(f"{__name__}.LOSING", {"silo-4"} if how == "lost" else set())
    if how in ("internal", "out_of_service", "busy"):
        fakes[-1].misbehave = lambda query, count: RefusalCode(how) if count >= since else None
    return fakes, transport


MANY = {"queries__deadline_s": 20, "queries__quorum": 0.6, "queries__rounds": 12}


@pytest.mark.parametrize("since", [0, 3])
@pytest.mark.parametrize("how", FAILURES)
def test_however_and_whenever_a_silo_fails_it_costs_at_most_one_deadline(tmp_path, monkeypatch, how, since):
    clock, told = quick_clock(), []
    _, transport = failing(monkeypatch, clock, how, since)
    result = distill(settings(**MANY), transport, tmp_path, clock=clock, tell=told.append)
    assert result["seconds"]["waiting"] <= 20 + 12 * 0.2 + 1
    assert [silo["answers"] for silo in result["silos"][:-1]] == [120] * (SILOS - 1)
    assert result["silos"][-1]["answers"] <= 10 * since
    assert sum("not waited for" in line for line in told) == 1


@pytest.mark.parametrize("at", [1, 6])
@pytest.mark.parametrize("how", FAILURES)
def test_and_none_more_where_the_run_is_resumed(tmp_path, monkeypatch, how, at):
    """Killed while it asks the round after the `at`-th, and resumed by a server that knows no more than the disk."""
    clock = quick_clock()
    fakes, transport = failing(monkeypatch, clock, how, 0)
    fakes[0].misbehave = dies_at(at + 1)
    with pytest.raises(Dies):
        distill(settings(**MANY), transport, tmp_path, clock=clock)
    assert 20 <= waited(tmp_path) <= 22
    _, transport = failing(monkeypatch, clock, how, 0)
    result = distill(settings(**MANY), transport, tmp_path, clock=clock, resume=True)
    assert result["seconds"]["waiting"] <= 20 + 12 * 0.2 + 1
    assert [silo["answers"] for silo in result["silos"]] == [120] * (SILOS - 1) + [0]


def test_one_that_answers_again_is_waited_for_again(tmp_path):
    """It needs 25 s for its third query, catches up, and never answers the ninth: two deadlines, not one a round."""
    clock, told = quick_clock(), []
    slow = {2: 25.0, 8: float("inf")}
    transport = SlowTeachers(silos(), clock, lambda silo, n: slow.get(n, 3.0) if silo == "silo-4" else 3.0)
    result = distill(settings(**MANY), transport, tmp_path, clock=clock, tell=told.append)
    assert told == ["silo-4 is not waited for until it replies: no answer within 20 s"] * 2
    assert result["seconds"]["waiting"] <= 2 * 20 + 12 * 3 + 1
    assert result["silos"][-1]["answers"] == 80


def waited(folder):
    return sum(span.end - span.begin for span in read_timeline(folder / "timeline.jsonl") if span.what == "waiting")


def dies_at(number):
    """The server is killed when it asks this silo for the `number`-th time."""
    seen = itertools.count(1)

    def misbehave(query, so_far):
        if next(seen) == number:
            raise Dies

    return misbehave


def test_too_few_without_those_who_missed_a_deadline_are_waited_for_and_then_left(tmp_path):
    """Two of three are needed; when the second stops answering, the third, which is late, is needed again."""
    never = float("inf")
    stops = {"silo-2": 1, "silo-1": 4}
    clock, told = quick_clock(), []
    transport = SlowTeachers(
        silos(count=3), clock, lambda silo, number: never if number >= stops.get(silo, 99) else 3.0
    )
    changes = {"silos__count": 3, "queries__deadline_s": 20, "queries__quorum": 0.6, "queries__rounds": 6}
    result = distill(settings(**changes), transport, tmp_path, clock=clock, tell=told.append)
    assert [silo["answers"] for silo in result["silos"]] == [120, 80, 20]
    assert told == [
        "silo-2 is not waited for until it replies: no answer within 20 s",
        "silo-1 is no longer asked: no answer within 20 s",
        "silo-2 is no longer asked: no answer within 20 s",
    ]


class Cook(FakeSilo):
    """A silo that takes recipes, and keeps what it was sent."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.description = replace(self.description, recipes=True)
        self.sent = []

    def answer(self, query):
        self.sent.append(query)
        if isinstance(query, RecipeQuery):
            made = Query(query.query_id, query.form, draw_images(query.recipe), query.run)
            assert made.payload_hash == query.payload
            assert query.recipe.candidates <= 16 * self.description.images_per_query
            query = made
        return super().answer(query)


def test_recipes_are_cut_with_their_batch(tmp_path):
    changes = {"silos__count": 3, "synthesis__candidates": 4, "synthesis__width": 2}
    cooks = [Cook(f"silo-{i}", images_per_query=size) for i, size in enumerate((64, 8, 1))]
    told = []
    distill(settings(queries__recipes=True, **changes), LocalTransport(cooks), tmp_path, tell=told.append)
    assert told == []
    assert all(isinstance(query, RecipeQuery) for query in cooks[0].sent)
    assert any(isinstance(query, RecipeQuery) for query in cooks[1].sent)
    assert all(isinstance(query, Query) for query in cooks[2].sent[30:]), "its candidates are more than it makes"
    asked = [np.concatenate([query.images for query in cook.queries]) for cook in cooks]
    for images in asked[1:]:
        np.testing.assert_array_equal(images, asked[0])


def test_small_answers_are_banked_together(tmp_path):
    bank = AnswerBank(tmp_path, (1, 2, 2), 3, ["a", "b"])
    batch = bank.add_batch(0, np.zeros((70, 1, 2, 2), np.uint8), np.zeros(70))
    held, p = HeldAnswers(bank), np.random.default_rng(1).dirichlet(np.ones(3), 70).astype(np.float32)
    for number, part in enumerate(parts_of(batch, "a", 1)):
        held.add("a", part, p[number : number + 1])
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()[2:]]
    assert [line["count"] for line in lines] == [32, 32, 6]
    assert batch.answered == {"a"}
    late = parts_of(batch, "b", 10)
    for part in (late[4], late[1], late[2]):
        held.add("b", part, p[part.rows])
    assert batch.answered_by("b") == []
    held.store("a")
    assert batch.answered_by("b") == []
    held.store("b")
    assert batch.answered_by("b") == [slice(10, 30), slice(40, 50)]
    answers, _ = bank.answers(batch)
    np.testing.assert_array_equal(answers[0], p)
    np.testing.assert_array_equal(answers[1, 10:30], p[10:30])
