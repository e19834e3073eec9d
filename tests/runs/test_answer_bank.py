# SPDX-License-Identifier: Apache-2.0
"""The bank keeps what was paid for, whatever happens to the process."""

import json

import numpy as np
import pytest

from fedcpsc.errors import BankError
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_view import read_bank

SHAPE, K, SILOS = (1, 4, 4), 3, ["silo-0", "silo-1"]


def make(folder):
    return AnswerBank(folder, SHAPE, K, SILOS)


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE)).astype(np.uint8)


def answers(n, seed=0):
    p = np.random.default_rng(seed).random((n, K)).astype(np.float32)
    return p / p.sum(1, keepdims=True)


def test_what_was_banked_is_read_back_by_a_new_process(tmp_path):
    bank = make(tmp_path)
    first = bank.add_batch(0, images(5), np.arange(5))
    second = bank.add_batch(1, images(3, 1), np.full(3, -1))
    bank.add_answers(first.query_id, "silo-0", answers(5))
    bank.add_answers(second.query_id, "silo-1", answers(3, 1))

    again = make(tmp_path)
    assert again.rows == 8
    np.testing.assert_array_equal(again.images[first.rows], images(5))
    np.testing.assert_array_equal(again.images[second.rows], images(3, 1))
    np.testing.assert_array_equal(again.pseudo_labels, [0, 1, 2, 3, 4, -1, -1, -1])
    got, given = again.answers(again.batches[0])
    np.testing.assert_array_equal(got[0], answers(5))
    np.testing.assert_array_equal(given, [[True] * 5, [False] * 5])
    assert again.batches[0].query_id == first.query_id
    assert again.answers_of("silo-0") == 5


def test_query_ids_differ_between_batches_and_banks_and_survive_reopening(tmp_path):
    ids = [make(tmp_path / name).add_batch(0, images(2), np.zeros(2)).query_id for name in ("a", "b")]
    ids.append(make(tmp_path / "a").add_batch(0, images(2), np.zeros(2)).query_id)
    assert len(set(ids)) == 3


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_journal_line_loses_only_that_line(tmp_path, cut):
    bank = make(tmp_path)
    batch = bank.add_batch(0, images(4), np.zeros(4))
    bank.add_answers(batch.query_id, "silo-0", answers(4))
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    bank.add_answers(batch.query_id, "silo-1", answers(4, 1))
    journal.write_bytes(journal.read_bytes()[: len(whole) + cut])  # the last line, torn

    again = make(tmp_path)
    assert again.batches[0].answered == {"silo-0"}
    assert again.add_answers(batch.query_id, "silo-1", answers(4, 1))
    assert make(tmp_path).batches[0].answered == {"silo-0", "silo-1"}


@pytest.mark.parametrize("left", [0, 10])
def test_a_crash_before_the_first_line_was_written_leaves_an_empty_bank(tmp_path, left):
    make(tmp_path)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:left])
    again = make(tmp_path)
    assert again.rows == 0
    batch = again.add_batch(0, images(4), np.zeros(4))
    assert make(tmp_path).batches == [batch]


def test_images_written_but_not_journalled_are_overwritten(tmp_path):
    bank = make(tmp_path)
    bank.add_batch(0, images(4), np.zeros(4))
    with (tmp_path / "images.u8").open("ab") as file:  # a crash between data and journal
        file.write(b"\xff" * 100)
    again = make(tmp_path)
    batch = again.add_batch(1, images(2, 5), np.zeros(2))
    np.testing.assert_array_equal(make(tmp_path).images[batch.rows], images(2, 5))


def test_a_second_answer_of_the_same_silo_is_dropped(tmp_path):
    bank = make(tmp_path)
    batch = bank.add_batch(0, images(2), np.zeros(2))
    assert bank.add_answers(batch.query_id, "silo-0", answers(2))
    assert not bank.add_answers(batch.query_id, "silo-0", answers(2, 9))
    np.testing.assert_array_equal(bank.answers(batch)[0][0], answers(2))


def test_answered_rows_can_be_asked_for_by_round(tmp_path):
    bank = make(tmp_path)
    for r in range(3):
        batch = bank.add_batch(r, images(2), np.zeros(2))
        if r != 1:
            bank.add_answers(batch.query_id, "silo-0", answers(2))
    assert bank.answered_rows().tolist() == [0, 1, 4, 5]
    assert bank.answered_rows(range(2)).tolist() == [0, 1]


def test_faults_are_told(tmp_path):
    bank = make(tmp_path)
    batch = bank.add_batch(0, images(2), np.zeros(2))
    with pytest.raises(BankError, match="uint8"):
        bank.add_batch(1, images(2)[:, :, :2], np.zeros(2))
    with pytest.raises(BankError, match="finite"):
        bank.add_answers(batch.query_id, "silo-0", np.full((2, K), np.nan, np.float32))
    with pytest.raises(BankError, match="no query of this bank"):
        bank.add_answers("0" * 32, "silo-0", answers(2))
    with pytest.raises(BankError, match="other silos or images"):
        AnswerBank(tmp_path, SHAPE, K, ["silo-0"])
    (tmp_path / "journal.jsonl").write_text('{"format": 1, "nonsense"\n')
    with pytest.raises(BankError, match="damaged"):
        make(tmp_path)


def test_a_journal_that_was_emptied_is_not_taken_for_a_new_bank(tmp_path):
    bank = make(tmp_path)
    bank.add_batch(0, images(4), np.zeros(4))
    before = (tmp_path / "images.u8").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(b"")
    with pytest.raises(BankError, match="empty, though images were banked"):
        make(tmp_path)
    assert (tmp_path / "images.u8").read_bytes() == before
    assert (tmp_path / "journal.jsonl").read_bytes() == b""


def test_a_journal_that_lost_a_line_in_its_middle_is_damaged(tmp_path):
    bank = make(tmp_path)
    for r in range(3):
        bank.add_batch(r, images(2), np.zeros(2))
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(BankError, match=r"journal.*damaged.*begins at row 4, the one before ends at row 2"):
        make(tmp_path)


def test_a_batch_is_answered_in_parts_that_a_new_process_finds(tmp_path):
    bank = make(tmp_path)
    before, batch = bank.add_batch(0, images(2), np.zeros(2)), bank.add_batch(1, images(6), np.zeros(6))
    whole, heard = answers(6), []
    for first, stop in ((4, 6), (2, 3), (6, 8)):
        assert bank.add_answers(batch.query_id, "silo-1", whole[first - 2 : stop - 2], slice(first, stop))
        heard.append(batch.heard)
    assert heard == [2, 3, 5], "every part is news"

    bank = make(tmp_path)
    before, batch = bank.batches
    assert batch.answered_by("silo-1") == [slice(2, 3), slice(4, 8)]
    assert batch.missing_of("silo-1") == [slice(3, 4)]
    assert batch.missing_of("silo-0") == [batch.rows]
    assert (bank.answers_of("silo-1"), bank.answered_rows().tolist()) == (5, [2, 4, 5, 6, 7])
    got, given = bank.answers(batch)
    np.testing.assert_array_equal(given, [[False] * 6, [True, False, True, True, True, True]])
    np.testing.assert_array_equal(got[1], whole * given[1][:, None])
    np.testing.assert_array_equal(bank.answers(batch, slice(3, 5))[1][1], [False, True])

    assert bank.add_answers(batch.query_id, "silo-1", whole[1:2], slice(3, 4))
    for again in (bank, make(tmp_path), read_bank(tmp_path)):
        assert (again.batches[1].answered, again.batches[1].parts, again.batches[1].heard) == ({"silo-1"}, {}, 6)
        np.testing.assert_array_equal(again.answers(again.batches[1])[0][1], whole)
    assert bank.add_answers(before.query_id, "silo-0", answers(2))


def test_a_part_that_was_answered_before_is_dropped(tmp_path):
    bank = make(tmp_path)
    batch = bank.add_batch(0, images(6), np.zeros(6))
    assert bank.add_answers(batch.query_id, "silo-0", answers(2), slice(1, 3))
    for rows in (slice(1, 3), slice(2, 4), slice(0, 6), slice(5, 7)):
        assert not bank.add_answers(batch.query_id, "silo-0", answers(rows.stop - rows.start, 9), rows)
    np.testing.assert_array_equal(bank.answers(batch)[0][0, 1:3], answers(2))
    assert make(tmp_path).batches[0].answered_by("silo-0") == [slice(1, 3)]


@pytest.mark.parametrize("first", [1, 2, 7])
def test_a_journal_with_parts_that_overlap_or_lie_outside_is_damaged(tmp_path, first):
    bank = make(tmp_path)
    batch = bank.add_batch(0, images(6), np.zeros(6))
    bank.add_answers(batch.query_id, "silo-0", answers(2), slice(1, 3))
    line = {"part": batch.query_id, "silo": "silo-0", "first": first, "count": 2}
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(BankError, match="damaged"):
        make(tmp_path)
