# SPDX-License-Identifier: Apache-2.0
import csv
import json
import sqlite3
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from support.old_ledger import OLD_NAME, make_old_ledger
from support.silo_folder import make_folder
from typer.testing import CliRunner, Result

from fedcpsc.commands.owner_commands import mount
from fedcpsc.ledger.budget import Charge
from fedcpsc.ledger.ledger import Ledger

POPULATION = "people of the north"  # as `make_folder` names it
LOSS = ("--accept-loss", "--reason", "the disk died")
NOISY = {"kind": "noise_only", "sigma": 10.0, "epsilon": 8.0}


def fedcpsc(*words: object) -> Result:
    app = typer.Typer()
    mount(app)
    return CliRunner().invoke(app, ["ledger", *(str(word) for word in words)])


def told(*words: object) -> dict[str, Any]:
    done = fedcpsc(*words, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder / "ledger.sqlite", POPULATION)


def test_what_left_without_a_guarantee_is_no_small_epsilon(tmp_path: Path) -> None:
    make_folder(tmp_path)
    opened(tmp_path).reserve("a", "p", Charge(3, private=False))
    assert "epsilon_spent: infinite: nothing bounds what left without a guarantee\n" in fedcpsc("show", tmp_path).stdout
    assert told("show", tmp_path)["epsilon_spent"] is None


def test_a_ledger_is_begun_once_shown_and_raised_only_upwards(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"answers": 100, "mechanism": NOISY})
    (tmp_path / "ledger.sqlite").unlink()
    assert "is missing" in fedcpsc("show", tmp_path).output
    assert "belongs to an earlier ledger; restore that ledger" in fedcpsc("init", tmp_path).output
    (tmp_path / "ledger.mark").unlink()
    assert fedcpsc("init", tmp_path).exit_code == 0
    assert fedcpsc("init", tmp_path).exit_code == 1
    assert told("show", tmp_path)["answers"] == {"budget": 100, "spent": 0, "left": 100}
    assert fedcpsc("raise", tmp_path, "--answers", 150, "--epsilon", 10, "--note", "why").exit_code == 0
    found = told("show", tmp_path)
    assert found["answers"]["budget"] == 150
    assert found["mu2"]["budget"] == pytest.approx(2.000445620430778**2, abs=1e-9)
    assert fedcpsc("raise", tmp_path, "--answers", 10).exit_code == 1
    assert fedcpsc("raise", tmp_path).exit_code == 2
    rows = [json.loads(line) for line in fedcpsc("export", tmp_path, "--raw").stdout.splitlines()]
    assert [(row["kind"], row["note"]) for row in rows] == [("created", ""), ("raised", "why")]


def test_epsilon_spent_is_shown_only_where_everything_had_a_guarantee(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"mechanism": NOISY})
    ledger = opened(tmp_path)
    ledger.reserve("a", "p", Charge(1, mu2=10**12, private=True))
    assert told("show", tmp_path)["epsilon_spent"] == pytest.approx(4.377178095681232)
    ledger.reserve("b", "p", Charge(1, private=False))
    assert told("show", tmp_path)["epsilon_spent"] is None


def test_verify_finds_tampering(tmp_path: Path) -> None:
    make_folder(tmp_path)
    assert told("verify", tmp_path)["sound"]
    with sqlite3.connect(tmp_path / "ledger.sqlite") as raw:
        ((again,),) = raw.execute("SELECT sql FROM sqlite_master WHERE name = 'events_keep'")
        raw.execute("DROP TRIGGER events_keep")
        raw.execute("UPDATE events SET answers_cap = 10000")
        raw.execute(again)
    raw.close()
    done = fedcpsc("verify", tmp_path)
    assert done.exit_code == 1
    assert "tampered" in done.output


def test_a_mark_can_be_begun_and_what_it_accepts_is_said_and_recorded(tmp_path: Path) -> None:
    make_folder(tmp_path / "silo")
    opened(tmp_path / "silo").reserve("a", "p", Charge(7))
    policy = tmp_path / "silo" / "policy.yaml"
    policy.write_text(f"high_water_mark: {tmp_path / 'mark'}\n")
    assert told("show", tmp_path / "silo")["mark"].startswith("missing")
    assert "ledger mark" in fedcpsc("raise", tmp_path / "silo", "--answers", 200).output
    said = fedcpsc("mark", tmp_path / "silo").stdout
    assert "accepted as the newest: row 2 of 20" in said
    assert "with 7 answers and mu2 0 spent" in said
    assert told("show", tmp_path / "silo")["mark"].startswith("matches, row 3")
    assert fedcpsc("raise", tmp_path / "silo", "--answers", 200).exit_code == 0
    assert "nothing to do" in fedcpsc("mark", tmp_path / "silo").stdout
    rows = [json.loads(line) for line in fedcpsc("export", tmp_path / "silo").stdout.splitlines()]
    assert json.loads(rows[2]["note"])["how"] == "mark"
    assert json.loads(rows[2]["note"])["answers_spent"] == 7


def test_a_relative_mark_in_the_policy_lies_in_the_silos_folder(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"high_water_mark": "own.mark"})
    assert (tmp_path / "own.mark").exists()
    assert told("show", tmp_path)["mark"].startswith("matches")


def test_show_says_what_an_owner_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 8 * 3600 * 10**9)
    opened(tmp_path).reserve("a", "p", Charge(3))
    monkeypatch.undo()
    opened(tmp_path).reserve("b", "p", Charge(3))
    words = fedcpsc("show", tmp_path).stdout
    for expected in (
        f"population: {POPULATION}",
        "unit: record",
        "answers: budget 100, spent 6, left 94",
        "queries: 2",
        "newest_row: 20",
        "the clock went back (-288",
        "mark: matches, row 4",
        "backup: fedcpsc ledger backup",
    ):
        assert expected in words
    assert "the clock went back" in fedcpsc("verify", tmp_path).stdout


# Export ---------------------------------------------------------------------------------------------------------------


def test_an_owner_reads_the_export(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"answers": 100, "mechanism": NOISY})
    ledger = opened(tmp_path)
    facts = {"private": True, "mechanism": "noise_only-1", "sigma": 10.0}
    ledger.reserve("a", "p", Charge(3, mu2=10**12, **facts), run="=spring")
    ledger.store("a", b"reply")
    ledger.raise_budget(answers=120, note="board, 3 May")
    ledger.reserve("b", "p", Charge(2, private=False))
    rows = [json.loads(line) for line in fedcpsc("export", tmp_path).stdout.splitlines()]
    assert [row["what"] for row in rows] == [
        "ledger begun",
        "query charged",
        "reply stored",
        "budget raised",
        "query charged",
    ]
    assert [row["images_so_far"] for row in rows] == [0, 3, 3, 3, 5]
    assert [row["images_left"] for row in rows] == [100, 97, 97, 117, 115]
    assert [row["epsilon_so_far"] for row in rows] == [0.0, *[pytest.approx(4.377178095681232)] * 3, None]
    assert (rows[1]["mechanism"], rows[1]["sigma"], rows[1]["guarantee"], rows[1]["run"]) == (
        "noise_only-1",
        10.0,
        True,
        "=spring",
    )
    for row in rows:
        assert datetime.fromisoformat(row["time"]).utcoffset() is not None
        assert row["time"].endswith("Z")
    table = list(csv.DictReader(fedcpsc("export", tmp_path, "--format", "csv").stdout.splitlines()))
    assert [row["images_so_far"] for row in table] == ["0", "3", "3", "3", "5"]
    assert table[4]["epsilon_so_far"] == ""
    assert table[1]["run"] == "'=spring"  # a run chooses its name: no formula for a spreadsheet
    assert table[3]["note"] == "board, 3 May"


def test_the_export_composes_a_training_with_the_answers(tmp_path: Path) -> None:
    make_folder(tmp_path, policy={"answers": 100, "mechanism": NOISY})
    ledger = opened(tmp_path)
    history = [(2.0, 0.01, 1000)]
    note = json.dumps({"epsilon": 1.0, "delta": 1e-5, "history": history})
    ledger.release("teacher:1", Charge(0, private=True, mechanism="dp_sgd", model="1"), note)
    alone = json.loads(fedcpsc("export", tmp_path).stdout.splitlines()[-1])["epsilon_so_far"]
    ledger.reserve("a", "p", Charge(1, mu2=10**11, private=True))
    both = json.loads(fedcpsc("export", tmp_path).stdout.splitlines()[-1])["epsilon_so_far"]
    assert 0 < alone < both == told("show", tmp_path)["epsilon_spent"]


# Backup and restore ---------------------------------------------------------------------------------------------------


def test_a_silo_moves_to_another_machine_by_backup_and_restore(tmp_path: Path) -> None:
    make_folder(tmp_path / "old")
    opened(tmp_path / "old").reserve("a", "p", Charge(7))
    backup = tmp_path / "backup.sqlite"
    assert "backed up and verified" in fedcpsc("backup", tmp_path / "old", backup).stdout
    assert fedcpsc("backup", tmp_path / "old", backup).exit_code == 1
    assert told("show", backup)["answers"]["spent"] == 7
    assert told("verify", backup)["sound"]
    make_folder(tmp_path / "new")
    assert "went separate ways" in fedcpsc("restore", tmp_path / "new", backup).output
    for name in ("ledger.sqlite", "ledger.mark"):
        (tmp_path / "new" / name).unlink()
    assert fedcpsc("restore", tmp_path / "new", backup).exit_code == 0
    assert told("show", tmp_path / "new")["answers"]["spent"] == 7
    assert told("show", tmp_path / "new")["mark"].startswith("matches")


def test_a_lost_ledger_comes_back_with_its_rest_spent(tmp_path: Path) -> None:
    make_folder(tmp_path / "silo")
    backup = tmp_path / "backup.sqlite"
    fedcpsc("backup", tmp_path / "silo", backup)
    opened(tmp_path / "silo").reserve("a", "p", Charge(7))
    (tmp_path / "silo" / "ledger.sqlite").unlink()
    assert "--accept-loss" in fedcpsc("restore", tmp_path / "silo", backup).output
    assert fedcpsc("restore", tmp_path / "silo", backup, "--accept-loss").exit_code == 2
    done = fedcpsc("restore", tmp_path / "silo", backup, "--accept-loss", "--reason", "disk")
    assert "raise the budget knowingly" in done.stdout
    assert told("show", tmp_path / "silo")["answers"]["left"] == 0


def test_an_old_ledger_is_shown_and_its_owner_told_to_migrate_it(tmp_path: Path) -> None:
    make_folder(tmp_path, population=OLD_NAME)
    for name in ("ledger.sqlite", "ledger.sqlite-journal", "ledger.mark"):
        (tmp_path / name).unlink(missing_ok=True)
    make_old_ledger(tmp_path / "ledger.sqlite")
    assert told("show", tmp_path)["answers"]["spent"] == 10
    assert "ledger migrate" in fedcpsc("raise", tmp_path, "--answers", 200).output


def test_a_folder_of_an_earlier_version_is_read_with_a_hint_and_no_byte_is_changed(tmp_path: Path) -> None:
    old_folder(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words in (("show", "--json"), ("verify", "--json"), ("export",)):
        done = fedcpsc(words[0], tmp_path, *words[1:])
        assert done.exit_code == 0, done.output
        assert OLD_NAME in done.stdout or json.loads(done.stdout)["sound"]
        assert f"fedcpsc ledger migrate {tmp_path} --population NAME" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("migrated", [True, False], ids=["after the migration", "before it"])
@pytest.mark.parametrize("damaged", [True, False], ids=["damaged", "lost"])
def test_a_backup_of_an_earlier_version_comes_back_with_its_rest_spent_and_no_promise(
    tmp_path: Path, migrated: bool, damaged: bool
) -> None:
    folder, backup, name = tmp_path / "silo", tmp_path / "backup.sqlite", "patients of north"
    old_folder(folder)
    assert fedcpsc("backup", folder, backup).exit_code == 0
    if migrated:
        assert fedcpsc("migrate", folder, "--population", name).exit_code == 0
        assert "is older than the ledger there" in fedcpsc("restore", folder, backup, *LOSS).output
    ledger = folder / "ledger.sqlite"
    ledger.write_bytes(b"damaged") if damaged else ledger.unlink()
    refused = fedcpsc("restore", folder, backup)
    assert refused.exit_code == 1
    assert "accept the loss: --accept-loss --reason WHY" in refused.output
    done = fedcpsc("restore", folder, backup, *LOSS)
    assert done.exit_code == 0, done.output
    if not migrated:
        assert fedcpsc("migrate", folder, "--population", name).exit_code == 0
    found = told("show", folder)
    assert found["population"] == name
    assert found["answers"] == {"budget": 100, "spent": 100, "left": 0}
    assert found["epsilon_spent"] is None
    assert found["mark"].startswith("matches")
    assert told("verify", folder)["sound"]
    Ledger.open(ledger, name).close()


def test_a_folder_of_an_earlier_version_takes_no_backup_of_another_data_set(tmp_path: Path) -> None:
    old_folder(tmp_path / "silo")
    Ledger.create(tmp_path / "other.sqlite", "ds-" + "1" * 64, 100).close()
    (tmp_path / "silo" / "ledger.sqlite").unlink()
    assert fedcpsc("restore", tmp_path / "silo", tmp_path / "other.sqlite", *LOSS).exit_code == 1
    assert not (tmp_path / "silo" / "ledger.sqlite").exists()


def old_folder(folder: Path) -> None:
    """A silo as version 1 left it, 10 of 100 answers spent."""
    make_folder(folder)
    tree = json.loads((folder / "manifest.json").read_text())
    for name in ("population", "unit", "origin"):
        del tree[name]
    (folder / "manifest.json").write_text(json.dumps(tree | {"format_version": 1, "dataset_id": OLD_NAME}))
    for name in ("ledger.sqlite", "ledger.sqlite-journal", "ledger.mark"):
        (folder / name).unlink(missing_ok=True)
    make_old_ledger(folder / "ledger.sqlite")
