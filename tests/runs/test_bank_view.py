# SPDX-License-Identifier: Apache-2.0
"""A bank that is only looked at says what its writer says, and changes no byte."""

import numpy as np
import pytest

from fedcpsc.errors import BankError
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_view import find_bank, read_bank

SILOS = ["silo-0", "silo-1"]


@pytest.fixture
def bank(tmp_path):
    """Three batches, of which silo-1 answered the second alone."""
    made = AnswerBank(tmp_path / "bank", (1, 2, 2), 3, SILOS)
    random = np.random.default_rng(0)
    for r in range(3):
        pixels = random.integers(0, 256, (4, 1, 2, 2)).astype(np.uint8)
        batch = made.add_batch(r, pixels, np.full(4, r - 1))
        for silo in SILOS if r == 1 else SILOS[:1]:
            made.add_answers(batch.query_id, silo, random.dirichlet(np.ones(3), 4).astype(np.float32))
        made.set_targets(batch, random.dirichlet(np.ones(3), 4).astype(np.float32))
    return made


def test_it_shows_what_the_bank_holds(bank):
    view = read_bank(bank.folder)
    assert (view.silos, view.classes, view.image_shape, view.rows) == (SILOS, 3, (1, 2, 2), 12)
    assert view.batches == bank.batches
    for name in ("images", "targets", "pseudo_labels"):
        np.testing.assert_array_equal(getattr(view, name), getattr(bank, name))
    for batch in view.batches:
        for mine, theirs in zip(view.answers(batch), bank.answers(batch), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert [view.answers_of(silo) for silo in SILOS] == [12, 4]
    assert view.answered_rows(range(1, 2)).tolist() == [4, 5, 6, 7]


def test_half_a_line_is_left_where_it_is(bank):
    journal = bank.folder / "journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"batch": "half a li')
    before = {path: path.read_bytes() for path in bank.folder.iterdir()}
    assert read_bank(bank.folder).rows == 12
    assert {path: path.read_bytes() for path in bank.folder.iterdir()} == before
    assert not read_bank(bank.folder).images.flags.writeable


def test_answers_that_are_not_on_the_disk_are_told_at_once(bank):
    (bank.folder / "answers-1.f32").write_bytes(b"short")
    with pytest.raises(BankError, match=r"answers-1\.f32.*shorter than the journal"):
        read_bank(bank.folder)


def test_a_silo_that_the_head_does_not_name_is_damage(bank):
    journal = bank.folder / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"silo": "silo-1"', '"silo": "silo-9"'))
    with pytest.raises(BankError, match="does not name silo-9"):
        read_bank(bank.folder)


def test_a_folder_without_a_bank_has_none(tmp_path):
    assert find_bank(tmp_path) is None
