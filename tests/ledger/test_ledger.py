# SPDX-License-Identifier: Apache-2.0
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from fedcpsc.errors import LedgerError
from fedcpsc.ledger.ledger import Budget, Charge, Denied, Ledger, Reserved, Stored

DATA = "clinic north"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "ledger.sqlite", DATA, 10, mu2=1000)


def reserved(answers: int, mu2: int = 1000) -> Reserved:
    """With so much left."""
    return Reserved(Budget(answers, mu2))


def reopened(ledger: Ledger, **options: object) -> Ledger:
    ledger.close()
    return Ledger.open(ledger.path, DATA, **options)  # type: ignore[arg-type]


def test_a_charge_is_committed_before_the_reply_and_counts_exactly(ledger: Ledger) -> None:
    assert ledger.reserve("a", "p", Charge(4)) == reserved(6)
    assert Ledger.open(ledger.path, DATA).status().spent.answers == 4  # another connection sees it already
    assert ledger.reserve("b", "p", Charge(6)) == reserved(0)
    assert ledger.reserve("c", "p", Charge(1)) == Denied(conflict=False)
    assert ledger.status().left == Budget(0, 1000)


def test_the_whole_batch_is_refused_and_a_smaller_one_still_fits(ledger: Ledger) -> None:
    assert ledger.reserve("a", "p", Charge(11)) == Denied(conflict=False)
    assert ledger.reserve("b", "p", Charge(10)) == reserved(0)
    assert ledger.reserve("a", "p", Charge(11)) == Denied(conflict=False)
    assert ledger.status().refused == 1


def test_mu2_is_a_budget_of_its_own(ledger: Ledger) -> None:
    assert ledger.reserve("a", "p", Charge(1, mu2=1000)) == reserved(9, mu2=0)
    assert ledger.reserve("b", "p", Charge(1, mu2=1)) == Denied(conflict=False)
    assert ledger.reserve("c", "p", Charge(1, mu2=0)) == reserved(8, mu2=0)


def test_a_policy_may_tighten_but_not_widen(ledger: Ledger) -> None:
    assert ledger.reserve("a", "p", Charge(4), limit=Budget(3, 1000)) == Denied(conflict=False)
    assert ledger.reserve("b", "p", Charge(3), limit=Budget(3, 1000)) == reserved(0)
    assert ledger.reserve("c", "p", Charge(8), limit=Budget(99, 1000)) == Denied(conflict=False)


def test_a_replay_returns_the_stored_bytes_uncharged_even_after_reopening(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(4))
    assert ledger.store("a", b"reply") == b"reply"
    assert ledger.reserve("a", "p", Charge(4)) == Stored(b"reply")
    again = reopened(ledger)
    assert again.reserve("a", "p", Charge(4)) == Stored(b"reply")
    assert again.status().spent.answers == 4


def test_the_same_id_with_another_question_is_a_conflict(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(4))
    assert ledger.reserve("a", "other", Charge(4)) == Denied(conflict=True)
    assert ledger.reserve("a", "p", Charge(4), principal="another asker") == reserved(2)


def test_a_crash_between_charge_and_reply_is_computed_again_without_charge(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(4, model="m"))
    again = reopened(ledger)
    assert again.reserve("a", "p", Charge(4, model="m")) == reserved(6)
    assert again.status().spent.answers == 4


def test_another_teacher_answers_what_was_charged_and_never_answered_where_it_costs_the_same(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(4, model="m", mechanism="laplace"))
    for other in (
        Charge(4, model="m"),
        Charge(4, mu2=1, model="m", mechanism="laplace"),
        Charge(3, mechanism="laplace"),
    ):
        assert ledger.reserve("a", "p", other) == Denied(conflict=True)
    fixed = Charge(4, model="fixed", mechanism="laplace")
    assert ledger.reserve("a", "p", fixed) == reserved(6)
    ledger.store("a", b"reply", model="fixed")
    assert [(row["kind"], row["model"]) for row in ledger.export()][1:] == [("charged", "m"), ("answered", "fixed")]
    assert ledger.verify().spent.answers == 4
    assert ledger.reserve("a", "p", Charge(4, model="later")) == Stored(b"reply")


def test_recalling_a_query_charges_nothing(ledger: Ledger) -> None:
    assert ledger.recall("a", "p", Charge(4)) is None
    assert ledger.status().events == 1
    ledger.reserve("a", "p", Charge(4))
    assert ledger.recall("a", "p", Charge(4)) == reserved(6)
    assert ledger.recall("a", "other", Charge(4)) == Denied(conflict=True)
    assert ledger.recall("a", "p", Charge(4), principal="another asker") is None
    ledger.store("a", b"reply")
    assert ledger.recall("a", "p", Charge(4)) == Stored(b"reply")
    ledger.reserve("b", "p", Charge(7))
    assert ledger.recall("b", "p", Charge(7)) == Denied(conflict=False)
    assert ledger.status().spent.answers == 4


def test_the_loser_of_a_race_sends_the_winners_reply(ledger: Ledger) -> None:
    rival = Ledger.open(ledger.path, DATA)
    assert isinstance(ledger.reserve("a", "p", Charge(1)), Reserved)
    assert isinstance(rival.reserve("a", "p", Charge(1)), Reserved)
    assert rival.store("a", b"first") == b"first"
    assert ledger.store("a", b"second") == b"first"
    assert ledger.verify().queries == 1


def test_a_reply_needs_a_charge(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(11))
    for query_id in ("a", "never asked"):
        with pytest.raises(LedgerError, match="was not charged"):
            ledger.store(query_id, b"reply")


def test_only_the_owner_raises_a_budget_and_it_is_a_row(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(10))
    assert ledger.raise_budget(answers=12, note="board of 3 May").left.answers == 2
    assert ledger.reserve("b", "p", Charge(2)) == reserved(0)
    with pytest.raises(LedgerError, match="must not be below 12"):
        ledger.raise_budget(answers=11)
    rows = list(ledger.export())
    assert [row["kind"] for row in rows] == ["created", "charged", "raised", "charged"]
    assert rows[2]["note"] == "board of 3 May"


def test_a_release_is_charged_once(ledger: Ledger) -> None:
    assert ledger.release("class-counts", Charge(0, mu2=400, private=True))
    assert not ledger.release("class-counts", Charge(0, mu2=400, private=True))
    assert ledger.status().spent == Budget(0, 400)
    with pytest.raises(LedgerError, match="does not fit"):
        ledger.release("more", Charge(0, mu2=601))


def test_answers_without_a_guarantee_are_counted_apart(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(2, private=False))
    ledger.reserve("b", "p", Charge(3, private=True))
    assert ledger.status().unprotected == 2


def test_many_threads_and_connections_spend_exactly_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger.create(path, DATA, 50).close()
    ledgers = [Ledger.open(path, DATA) for _ in range(3)]
    granted: list[str] = []

    def ask(worker: int) -> None:
        for turn in range(12):
            name = f"{worker}-{turn}"
            if isinstance(ledgers[worker % 3].reserve(name, "p", Charge(1)), Reserved):
                ledgers[worker % 3].store(name, name.encode())
                granted.append(name)

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 50
    status = ledgers[0].verify()
    assert (status.spent.answers, status.queries, status.refused) == (50, 50, 22)


def test_refusals_stop_being_recorded_so_that_strangers_cannot_fill_the_disk(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedcpsc.ledger.ledger._REFUSALS_KEPT", 3)
    for number in range(10):
        assert ledger.reserve(str(number), "p", Charge(11)) == Denied(conflict=False)
    assert ledger.status().events == 1 + 3


# What the owner must hear about ---------------------------------------------------------------------------------------


def test_a_missing_ledger_is_never_begun_silently(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"is missing.*ledger init"):
        Ledger.open(tmp_path / "none.sqlite", DATA)
    assert not (tmp_path / "none.sqlite").exists()


def test_an_existing_ledger_is_never_overwritten(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="exists already"):
        Ledger.create(ledger.path, DATA, 10)


def test_a_foreign_ledger_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="ledger population"):
        Ledger.open(ledger.path, "clinic south")
    with pytest.raises(LedgerError, match="ledger unit"):
        Ledger.open(ledger.path, DATA, unit="patient")


@pytest.mark.parametrize("budget", [(0, 0, 1e-5), (-1, 0, 1e-5), (1, -1, 1e-5), (1, 0, 0.0), (1, 0, 1.0)])
def test_a_ledger_needs_a_budget(tmp_path: Path, budget: tuple[int, int, float]) -> None:
    answers, mu2, delta = budget
    with pytest.raises(LedgerError, match="fix the budget"):
        Ledger.create(tmp_path / "l.sqlite", DATA, answers, mu2=mu2, delta=delta)
    assert not (tmp_path / "l.sqlite").exists()


def test_an_interrupted_beginning_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(LedgerError, match="was never begun"):
        Ledger.open(tmp_path / "empty.sqlite", DATA)


def test_a_file_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 500)
    with pytest.raises(LedgerError, match="is not a ledger"):
        Ledger.open(tmp_path / "text.sqlite", DATA)


def test_a_read_only_ledger_charges_nothing(ledger: Ledger) -> None:
    ledger._db.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError, match="read-only"):
        ledger.reserve("a", "p", Charge(1))
    assert ledger.status().spent.answers == 0


def test_a_full_disk_charges_nothing_and_the_ledger_recovers(ledger: Ledger) -> None:
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    ledger.reserve("a", "p", Charge(1))
    with pytest.raises(LedgerError, match="disk is full"):
        ledger.store("a", b"x" * 50_000)
    ledger._db.execute("PRAGMA max_page_count = 100000")
    assert ledger.store("a", b"x" * 50_000) == b"x" * 50_000
    assert ledger.verify().spent.answers == 1


# Tampering ------------------------------------------------------------------------------------------------------------


def used(ledger: Ledger) -> Ledger:
    for name in "abc":
        ledger.reserve(name, "p", Charge(1, mu2=5))
        ledger.store(name, name.encode() * 10)
    ledger.raise_budget(answers=20)
    ledger.reserve("d", "p", Charge(100))
    return ledger


TAMPERINGS = {
    "lower what was spent": "UPDATE events SET answers_spent = answers_spent - 1 WHERE seq = 7",
    "raise a cap": "UPDATE events SET answers_cap = 99 WHERE seq >= 2",
    "change a question": "UPDATE events SET payload = 'q' WHERE seq = 2",
    "change a time": "UPDATE events SET time_ns = time_ns + 1 WHERE seq = 3",
    "remove a charge": "DELETE FROM events WHERE seq = 4",
    "remove the beginning": "DELETE FROM events WHERE seq = 1",
    "remove everything": "DELETE FROM events",
    "swap a type": "UPDATE events SET private = 1 WHERE seq = 2",
    "change a reply": "UPDATE replies SET reply = x'00' WHERE seq = 3",
    "remove a reply": "DELETE FROM replies WHERE seq = 3",
    "add a reply": "INSERT INTO replies VALUES (2, x'00')",
    "move a reply": "UPDATE replies SET seq = 2 WHERE seq = 3",
    "another population": "UPDATE events SET dataset_id = 'clinic south' WHERE seq = 4",
}


def guarded(statement: str) -> AbstractContextManager[object]:
    """The ledger's own triggers stop a change or removal; only an insertion passes them."""
    return nullcontext() if "INSERT" in statement else pytest.raises(sqlite3.IntegrityError, match="append-only")


def tampered(ledger: Ledger, statement: str) -> Path:
    """The ledger's file after `statement`, and with its triggers as they were."""
    ledger.close()
    with sqlite3.connect(ledger.path) as raw:
        with guarded(statement):
            raw.execute(statement)
        triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        if "INSERT" not in statement:
            raw.execute(statement)
        for _, again in triggers:
            raw.execute(again)
    raw.close()
    return ledger.path


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_every_tampering_is_found(ledger: Ledger, statement: str) -> None:
    used(ledger).verify()
    path = tampered(ledger, statement)
    with pytest.raises(LedgerError):
        Ledger.open(path, DATA).verify()
    with pytest.raises(LedgerError):
        Ledger.read(path).verify()


@pytest.mark.parametrize("part", ["INDEX asked_once", "TRIGGER replies_stay", "TABLE replies"])
def test_a_ledger_that_lost_a_part_of_its_schema_is_refused(ledger: Ledger, part: str) -> None:
    ledger.close()
    with sqlite3.connect(ledger.path) as raw:
        raw.execute(f"DROP {part}")
    raw.close()
    with pytest.raises(LedgerError, match="ledger schema"):
        Ledger.open(ledger.path, DATA)


def test_a_stored_reply_that_was_changed_is_never_sent(ledger: Ledger) -> None:
    path = tampered(used(ledger), TAMPERINGS["change a reply"])
    with pytest.raises(LedgerError, match="stored reply is missing or changed"):
        Ledger.open(path, DATA).reserve("a", "p", Charge(1))


def test_a_ledger_made_by_a_newer_version_is_refused(ledger: Ledger) -> None:
    ledger._db.execute("PRAGMA user_version = 3")
    with pytest.raises(LedgerError, match=r"user_version=3.*made by a newer version; upgrade"):
        reopened(ledger)
    with pytest.raises(LedgerError, match="made by a newer version"):
        Ledger.read(ledger.path)


def test_a_charge_that_is_no_number_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="holds a value that no ledger keeps"):
        ledger.reserve("a", "p", Charge(1, sigma=float("nan")))
    assert ledger.verify().spent.answers == 0


def test_a_ledger_that_was_replaced_while_open_answers_nothing(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(1))
    ledger.path.rename(ledger.path.with_name("moved.sqlite"))
    with pytest.raises(LedgerError, match="was moved or replaced while open"):
        ledger.store("a", b"reply")


# The owner's acts: populations, charges of other ledgers --------------------------------------------------------------


def test_the_owner_names_the_population_anew_and_the_rows_before_keep_the_old_name(ledger: Ledger) -> None:
    ledger.reserve("a", "p", Charge(4))
    assert ledger.name_population("clinic north, all wards", "merged on 1 May").population == "clinic north, all wards"
    ledger.reserve("b", "p", Charge(2))
    ledger.close()
    with pytest.raises(LedgerError, match="ledger population"):
        Ledger.open(ledger.path, DATA)
    again = Ledger.open(ledger.path, "clinic north, all wards")
    assert again.verify().spent.answers == 6
    assert [row["dataset_id"] for row in again.export()] == [DATA] * 2 + ["clinic north, all wards"] * 2


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 121])
def test_a_population_needs_a_name_that_can_be_read(ledger: Ledger, tmp_path: Path, name: str) -> None:
    with pytest.raises(LedgerError, match="population"):
        ledger.name_population(name, "why")
    with pytest.raises(LedgerError, match="population"):
        Ledger.create(tmp_path / "other.sqlite", name, 10)


def test_charges_of_another_ledger_are_carried_over_once_and_count(ledger: Ledger) -> None:
    assert ledger.carry("past/a", Charge(8, mu2=900, private=True), '{"source": "a"}')
    assert not ledger.carry("past/a", Charge(8, mu2=900, private=True))
    assert ledger.verify().left == Budget(2, 100)
    assert [row["query_id"] for row in ledger.releases()] == ["past/a"]
    assert ledger.carry("past/b", Charge(5, mu2=900))  # what was spent was spent, also beyond the budget
    status = ledger.verify()
    assert (status.left, status.unprotected) == (Budget(0, 0), 5)
    assert ledger.reserve("q", "p", Charge(1)) == Denied(conflict=False)


def test_a_policy_bounds_releases_too(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="does not fit"):
        ledger.release("class-counts", Charge(0, mu2=400, private=True), limit=Budget(10, 399))
    assert ledger.release("class-counts", Charge(0, mu2=400, private=True), limit=Budget(10, 400))


@pytest.mark.parametrize(
    "module",
    ["ledger.ledger", "ledger.budget", "gatekeeper.policy", "teachers.format", "commands.ledger_commands", "cli"],
)
def test_the_owners_modules_import_neither_torch_nor_flwr(module: str) -> None:
    code = f"import sys, fedcpsc.{module}; print([m for m in ('torch', 'flwr') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
