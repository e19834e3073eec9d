# SPDX-License-Identifier: Apache-2.0
"""A bank says of every image where it comes from; one of an earlier version says what can be known."""

import json

import numpy as np
import pytest
from support.old_bank import without_origins

from fedcpsc.errors import BankError
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.origins import BASIC_ORIGINS, GENERATOR, PRIOR, PUBLIC, origin_table

SILOS, SHAPE = ["silo-0", "silo-1"], (1, 2, 2)
TABLE = origin_table(["smooth", "dead_leaves"])


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def make(folder, origins=TABLE):
    return AnswerBank(folder, SHAPE, 3, SILOS, origins=origins)


def codes(*numbers):
    return np.array(numbers, np.uint8)


def test_the_basic_origins_have_the_same_code_in_every_bank_and_priors_follow_by_name():
    assert (*BASIC_ORIGINS, "prior:dead_leaves", "prior:smooth") == TABLE
    assert (BASIC_ORIGINS[PRIOR], BASIC_ORIGINS[GENERATOR], BASIC_ORIGINS[PUBLIC]) == ("prior", "generator", "public")
    assert origin_table() == BASIC_ORIGINS


def test_origins_are_kept_with_their_images_by_writer_view_and_after_a_restart(tmp_path):
    bank = make(tmp_path)
    bank.add_batch(0, images(3), np.array([-1, -1, 2]), codes(4, PUBLIC, GENERATOR))
    bank.add_batch(1, images(2, 1), np.array([-1, 0]))
    expected = [4, PUBLIC, GENERATOR, PRIOR, GENERATOR]
    for seen in (bank, read_bank(tmp_path), make(tmp_path)):
        assert seen.origins.tolist() == expected
        assert seen.origin_names == TABLE
    assert read_bank(tmp_path).check_sums()
    assert (tmp_path / "origins.u8").stat().st_mode & 0o777 == 0o600


def test_a_bank_keeps_its_table_whatever_it_is_opened_with(tmp_path):
    make(tmp_path).add_batch(0, images(1), np.array([-1]), codes(3))
    again = make(tmp_path, origin_table(["scenes"]))
    assert again.origin_names == TABLE
    again.add_batch(1, images(1, 1), np.array([-1]), codes(4))
    assert [again.origin_names[code] for code in again.origins] == ["prior:dead_leaves", "prior:smooth"]


@pytest.mark.parametrize("given", [codes(0), codes(0, 5), np.zeros(2, np.int64)])
def test_codes_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, given):
    bank = make(tmp_path)
    with pytest.raises(BankError, match="origins="):
        bank.add_batch(0, images(2), np.array([-1, -1]), given)
    assert (bank.rows, sorted(path.name for path in tmp_path.iterdir())) == (0, ["journal.jsonl"])


def test_a_bank_of_an_earlier_version_is_read_gone_on_with_and_its_origins_follow_from_its_labels(tmp_path):
    bank = make(tmp_path)
    first = bank.add_batch(0, images(3), np.array([-1, 2, -1]))
    bank.add_answers(first.query_id, "silo-0", np.full((3, 3), 1 / 3, np.float32))
    without_origins(tmp_path)
    view = read_bank(tmp_path)
    assert view.check_sums()
    assert (view.origins.tolist(), view.origin_names) == ([PRIOR, GENERATOR, PRIOR], BASIC_ORIGINS)
    again = make(tmp_path)
    again.add_batch(1, images(2, 1), np.array([0, -1]), codes(GENERATOR, PUBLIC))
    assert again.origins.tolist() == [PRIOR, GENERATOR, PRIOR, GENERATOR, PRIOR], "its file has no room for more"
    assert "origins" not in json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[0])
    assert not (tmp_path / "origins.u8").exists()
    assert read_bank(tmp_path).check_sums()


@pytest.mark.parametrize("table", [["generator"], "prior", [*TABLE, "prior:smooth"], 3, None])
def test_a_damaged_table_is_refused(tmp_path, table):
    make(tmp_path).add_batch(0, images(2), np.array([-1, -1]))
    journal = tmp_path / "journal.jsonl"
    head, *lines = journal.read_text().splitlines()
    changed = {k: v for k, v in json.loads(head).items() if k != "crc32"} | {"origins": table}
    bare = [json.dumps({k: v for k, v in json.loads(line).items() if k != "crc32"}) for line in lines]
    journal.write_text("\n".join([json.dumps(changed), *bare]) + "\n")
    for reader in (read_bank, make):
        with pytest.raises(BankError, match="damaged|cannot be read"):
            reader(tmp_path)


def test_a_code_without_a_name_is_damage(tmp_path):
    make(tmp_path).add_batch(0, images(2), np.array([-1, -1]))
    (tmp_path / "origins.u8").write_bytes(bytes([0, 200]))
    with pytest.raises(BankError, match=r"origins\.u8.*does not name"):
        read_bank(tmp_path)
