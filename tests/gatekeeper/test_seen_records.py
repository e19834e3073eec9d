# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from fedcpsc.errors import LedgerError
from fedcpsc.gatekeeper.seen_records import (
    SEEN_FILE,
    allow_population,
    check_never_seen,
    check_records,
    note_records,
    records_seen,
)
from fedcpsc.training.sharding import KEY_FILE

IDS = [bytes([number]) * 32 for number in range(5)]


def test_records_of_a_population_may_come_and_go_under_its_name(tmp_path: Path) -> None:
    check_records(tmp_path, "north", IDS)
    note_records(tmp_path, "north", IDS[:3])
    check_records(tmp_path, "north", IDS)
    note_records(tmp_path, "north", IDS[2:])
    before = (tmp_path / SEEN_FILE).read_bytes()
    note_records(tmp_path, "north", IDS)
    assert (tmp_path / SEEN_FILE).read_bytes() == before
    assert records_seen(tmp_path) == {"north": 5}


def test_a_new_name_over_records_seen_before_is_refused_until_the_owner_says_why(tmp_path: Path) -> None:
    note_records(tmp_path, "north", IDS[:3])
    with pytest.raises(
        LedgerError, match=r"population='south': 2 of 3 .*'north'.*fedcpsc ledger population .*--reason"
    ):
        check_records(tmp_path, "south", IDS[1:4])
    check_records(tmp_path, "south", IDS[3:])
    allow_population(tmp_path, "south", "merged clinics")
    check_records(tmp_path, "south", IDS)
    note_records(tmp_path, "south", IDS)
    with pytest.raises(LedgerError, match="'south'"):  # the reason was for one direction
        check_records(tmp_path, "north", IDS)
    with pytest.raises(LedgerError, match="3 of 5"):
        check_records(tmp_path, "east", IDS)


def test_a_population_whose_records_were_seen_has_had_its_ledger(tmp_path: Path) -> None:
    check_never_seen(tmp_path, "north")
    assert not list(tmp_path.iterdir())
    note_records(tmp_path, "north", IDS[:3])
    allow_population(tmp_path, "south", "other patients")
    check_never_seen(tmp_path, "south")
    with pytest.raises(LedgerError, match=r"'north': records.seen lists 3 .*fedcpsc ledger restore"):
        check_never_seen(tmp_path, "north")


def test_the_file_is_the_owners_alone_and_tells_no_record_without_the_key(tmp_path: Path) -> None:
    note_records(tmp_path, "north", IDS)
    path = tmp_path / SEEN_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(one.hex()[:16] in path.read_text() for one in IDS)
    (tmp_path / "other").mkdir()
    note_records(tmp_path / "other", "north", IDS)
    assert path.read_text().splitlines()[1] != (tmp_path / "other" / SEEN_FILE).read_text().splitlines()[1]


@pytest.mark.parametrize("place", range(0, 400, 37))
def test_a_damaged_file_is_an_error_and_no_fresh_budget(tmp_path: Path, place: int) -> None:
    note_records(tmp_path, "north", IDS)
    path = tmp_path / SEEN_FILE
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 4
    for damaged in (bytes(content), content[: len(content) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(LedgerError, match="is damaged"):
            check_records(tmp_path, "south", IDS)


def test_another_key_is_an_error_because_no_record_would_be_recognised(tmp_path: Path) -> None:
    note_records(tmp_path, "north", IDS)
    (tmp_path / KEY_FILE).write_bytes(b"k" * 32)
    with pytest.raises(LedgerError, match="is another key"):
        check_records(tmp_path, "south", IDS)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(LedgerError, match="is missing: records.seen was made with it"):
        check_records(tmp_path, "south", IDS)
    assert not (tmp_path / KEY_FILE).exists()
