# SPDX-License-Identifier: Apache-2.0
"""Naming the population of a silo: what was spent stays spent, whatever the name and whenever it crashes."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from support.silo_folder import make_folder
from typer.testing import CliRunner

from fedcpsc.commands.owner_commands import mount
from fedcpsc.errors import LedgerError, ManifestError, PolicyError
from fedcpsc.gatekeeper import population, swapping
from fedcpsc.gatekeeper.composition import released_epsilon
from fedcpsc.gatekeeper.guarantee import guarantee_of
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.population import change_population, migrate
from fedcpsc.gatekeeper.seen_records import check_records, note_records
from fedcpsc.ledger.budget import MU2_UNIT, Charge
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.ledger.mark import MARK_FILE
from fedcpsc.teachers.manifest import MANIFEST_FILE, load_manifest

NEW, OLD, OLDER = ("ds-" + digit * 64 for digit in "012")
HISTORY = [[1.89453125, 0.02, 500]]


def old_silo(folder: Path, **fields: Any) -> Path:
    """A silo as version 1 left it: a ledger for each data set, the present one in place."""
    make_folder(folder, policy={"answers": 100, "images_per_query": 50})
    tree = json.loads((folder / MANIFEST_FILE).read_text())
    for name in ("population", "unit", "origin"):
        del tree[name]
    (folder / MANIFEST_FILE).write_text(json.dumps(tree | {"format_version": 1, "dataset_id": NEW} | fields))
    (folder / LEDGER_FILE).unlink()
    (folder / MARK_FILE).unlink()
    (folder / "past").mkdir()
    for key, path in ((NEW, folder / LEDGER_FILE), (OLD, past_of(folder, OLD)), (OLDER, past_of(folder, OLDER))):
        with contextlib.closing(Ledger.create(path, key, 100, mu2=2 * MU2_UNIT)) as ledger:
            if key == OLD:
                note = json.dumps({"epsilon": 1.0, "delta": 1e-5, "history": HISTORY})
                ledger.release("teacher:w", Charge(0, private=True, mechanism="dp_sgd", model="w"), note)
                ledger.reserve("class-counts sigma=2", "p", Charge(0, MU2_UNIT // 4, True, "class-counts"))
                ledger.reserve("a", "p", Charge(30, MU2_UNIT // 2, True))
            if key == NEW:
                ledger.reserve("a", "p", Charge(40, MU2_UNIT // 8, True))
    for mark in folder.rglob("*.mark"):
        mark.unlink()  # the earlier version had none
    return folder


def past_of(folder: Path, key: str) -> Path:
    return folder / "past" / f"ledger-{key}.sqlite"


@contextlib.contextmanager
def read(folder: Path):
    with contextlib.closing(Ledger.read(folder / LEDGER_FILE)) as ledger:
        yield ledger


def spent(folder: Path) -> tuple[str, int, int]:
    with read(folder) as ledger:
        status = ledger.verify()
        return status.population, status.spent.answers, status.spent.mu2


def test_a_silo_of_version_1_is_read_by_nothing_but_the_migration(tmp_path: Path) -> None:
    folder = old_silo(tmp_path / "silo")
    with pytest.raises(ManifestError, match=r"format_version=1: .*fedcpsc ledger migrate .*silo --population NAME"):
        load_manifest(folder)


def test_migration_counts_every_ledger_the_folder_ever_had(tmp_path: Path) -> None:
    folder = old_silo(tmp_path / "silo")
    told = " ".join(migrate(folder, "clinic north"))
    assert spent(folder) == ("clinic north", 70, MU2_UNIT * 7 // 8)
    with read(folder) as ledger:
        rows = [(row["kind"], row["query_id"]) for row in ledger.export()]
        composed = released_epsilon(ledger)
    source = past_of(folder, OLD).name
    assert ("carried", f"{source}: teacher:w") in rows
    assert ("carried", f"{source}: class-counts sigma=2") in rows
    assert ("carried", f"{source}: answers") in rows
    assert [kind for kind, _ in rows].count("population") == 1
    assert composed is not None
    assert not composed.exact  # the training carried over composes
    assert f"{source} counts: 30 answers" in told
    manifest = load_manifest(folder)
    assert (manifest.population, manifest.unit, manifest.origin, manifest.dataset_id) == (
        "clinic north", "record", "adopted", None,
    )  # fmt: skip
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "nothing to do" in migrate(folder, "clinic north")[0]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(ManifestError, match="belongs to the population 'clinic north' already"):
        migrate(folder, "another")
    open_gatekeeper(folder).close()


def test_a_teacher_trained_by_this_project_is_told_from_an_adopted_one(tmp_path: Path) -> None:
    recipe = {"kind": "plain", "epochs": 2, "batch_size": 4, "seed": 1}
    folder = old_silo(tmp_path / "silo", kind="torch", entry_point=None, training=recipe)
    migrate(folder, "clinic north")
    assert (load_manifest(folder).origin, load_manifest(folder).dataset_id) == ("trained", NEW)


@pytest.mark.parametrize("step", ["name_population", "carry", "save_manifest"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_of_the_migration_is_resumed_without_counting_twice(
    tmp_path: Path, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = old_silo(tmp_path / "silo")
    owner = population if step == "save_manifest" else Ledger
    real = getattr(owner, step)

    def crash(*args: Any, **kwargs: Any) -> None:
        if after:
            real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, crash)
        with pytest.raises(KeyboardInterrupt):
            migrate(folder, "clinic north")
    migrate(folder, "clinic north")
    assert spent(folder) == ("clinic north", 70, MU2_UNIT * 7 // 8)


def test_a_past_ledger_that_cannot_be_read_stops_the_migration_and_nothing_is_changed(tmp_path: Path) -> None:
    folder = old_silo(tmp_path / "silo")
    past_of(folder, OLDER).write_bytes(b"no ledger")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(LedgerError, match="ledger"):
        migrate(folder, "clinic north")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_disjoint_records_are_left_out_only_with_a_reason_that_stays(tmp_path: Path) -> None:
    folder = old_silo(tmp_path / "silo")
    name = past_of(folder, OLD).name
    with pytest.raises(LedgerError, match="--reason"):
        migrate(folder, "clinic north", left_out=[name])
    with pytest.raises(LedgerError, match="no such ledger"):
        migrate(folder, "clinic north", left_out=["other.sqlite"], reason="none")
    migrate(folder, "clinic north", left_out=[name], reason="a trial with public images")
    assert spent(folder) == ("clinic north", 40, MU2_UNIT // 8)
    with read(folder) as ledger:
        assert any("a trial with public images" in row["note"] for row in ledger.releases())


def test_more_than_the_budget_holds_is_carried_all_the_same_and_nothing_is_left(tmp_path: Path) -> None:
    folder = old_silo(tmp_path / "silo")
    with contextlib.closing(Ledger.create(folder / "past" / "ledger-x.sqlite", "ds-" + "9" * 64, 500)) as ledger:
        ledger.reserve("a", "p", Charge(400, private=False))
    assert "nothing is left" in " ".join(migrate(folder, "clinic north"))
    with read(folder) as ledger:
        status = ledger.status()
        assert (status.spent.answers, status.budget.answers, status.left.answers, status.unprotected) == (
            470,
            100,
            0,
            400,
        )
        rules = Policy.model_validate({"mechanism": {"kind": "noise_only", "sigma": 10.0, "epsilon": 8.0}})
        with pytest.raises(PolicyError, match="400 releases of this population had no guarantee"):
            guarantee_of(rules, load_manifest(folder), ledger)


def test_persons_are_promised_only_where_nothing_was_released(tmp_path: Path) -> None:
    folder = old_silo(tmp_path / "silo")
    with pytest.raises(LedgerError, match=r"--unit='person': something was released already"):
        migrate(folder, "clinic north", "person")
    fresh = tmp_path / "fresh"
    old_silo(fresh)
    past_of(fresh, OLD).unlink()
    (fresh / LEDGER_FILE).unlink()
    Ledger.create(fresh / LEDGER_FILE, NEW, 100).close()
    migrate(fresh, "clinic north", "person")
    with read(fresh) as ledger:
        assert (ledger.status().population, ledger.status().unit) == ("clinic north", "person")
    open_gatekeeper(fresh).close()


def spend(folder: Path, answers: int) -> None:
    keeper = open_gatekeeper(folder)
    keeper.ledger.reserve(f"{answers:032x}", "a" * 64, Charge(answers))
    keeper.close()


def test_another_name_is_another_budget_with_its_reason_and_the_old_one_comes_back(tmp_path: Path) -> None:
    make_folder(tmp_path, population="north")
    note_records(tmp_path, "north", [b"a" * 32])
    spend(tmp_path, 7)
    with pytest.raises(LedgerError, match="--reason"):
        change_population(tmp_path, "south", " ")
    with pytest.raises(LedgerError, match="1 of 1 records"):
        check_records(tmp_path, "south", [b"a" * 32])
    change_population(tmp_path, "south", "other patients")
    assert spent(tmp_path) == ("south", 0, 0)
    assert load_manifest(tmp_path).population == "south"
    check_records(tmp_path, "south", [b"a" * 32])
    with read(tmp_path) as ledger:
        first, second = list(ledger.export())[:2]
        assert (first["kind"], second["kind"]) == ("created", "population")
        note = json.loads(second["note"])
        assert (note["from"], note["to"]) == ("north", "south")
        assert note["reason"] == "other patients (1 records were seen under the name 'north')"
    spend(tmp_path, 9)
    change_population(tmp_path, "north", "back again")
    assert spent(tmp_path)[:2] == ("north", 7)
    change_population(tmp_path, "south", "and forth")
    assert spent(tmp_path)[:2] == ("south", 9)
    spend(tmp_path, 11)


def test_a_name_whose_ledger_was_removed_from_the_past_gets_no_fresh_one(tmp_path: Path) -> None:
    make_folder(tmp_path, population="north")
    note_records(tmp_path, "north", [b"a" * 32])
    spend(tmp_path, 7)
    change_population(tmp_path, "south", "other patients")
    for path in (tmp_path / "past").iterdir():
        path.unlink()
    with pytest.raises(LedgerError, match=r"'north': records.seen lists 1 .*fedcpsc ledger restore"):
        change_population(tmp_path, "north", "back")
    assert spent(tmp_path) == ("south", 0, 0)


def test_a_mark_on_another_volume_goes_with_its_ledger(tmp_path: Path) -> None:
    silo, marks = tmp_path / "silo", tmp_path / "marks"
    marks.mkdir()
    make_folder(
        silo, policy={"answers": 100, "images_per_query": 50, "high_water_mark": str(marks / "m")}, population="north"
    )
    spend(silo, 7)
    change_population(silo, "south", "other patients")
    spend(silo, 9)
    change_population(silo, "north", "back")
    spend(silo, 11)
    assert spent(silo)[:2] == ("north", 18)


@pytest.mark.parametrize("calls", range(1, 6))
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_of_the_change_leaves_no_fresh_budget_and_is_resumed(
    tmp_path: Path, calls: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path, population="north")
    spend(tmp_path, 7)
    real, made = swapping._move, []

    def crash(source: Path, target: Path) -> None:
        made.append(source)
        if len(made) == calls and not after:
            raise KeyboardInterrupt
        real(source, target)
        if len(made) == calls:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(swapping, "_move", crash)
        with pytest.raises(KeyboardInterrupt):
            change_population(tmp_path, "south", "other patients")
    with contextlib.suppress(LedgerError):
        spend(tmp_path, 1)  # where it opens, it is the old ledger
        assert spent(tmp_path)[:2] == ("north", 8)
    change_population(tmp_path, "south", "other patients")
    spend(tmp_path, 2)
    assert spent(tmp_path)[:2] == ("south", 2)
    change_population(tmp_path, "north", "back")
    assert spent(tmp_path)[1] in (7, 8)


def test_a_ledger_in_use_is_not_set_aside(tmp_path: Path) -> None:
    make_folder(tmp_path, population="north")
    keeper = open_gatekeeper(tmp_path)
    with pytest.raises(LedgerError, match="is in use; stop the silo's gatekeeper first"):
        change_population(tmp_path, "south", "other patients")
    keeper.close()
    change_population(tmp_path, "south", "other patients")


def test_a_past_ledger_of_the_same_population_always_counts(tmp_path: Path) -> None:
    make_folder(tmp_path, population="north")
    (tmp_path / "past").mkdir()
    copy = tmp_path / "past" / "copy.sqlite"
    copy.write_bytes((tmp_path / LEDGER_FILE).read_bytes())
    open_gatekeeper(tmp_path).close()  # all that a copy of this ledger holds is counted
    with contextlib.closing(Ledger.create(tmp_path / "past" / "other.sqlite", "north", 100)) as ledger:
        ledger.reserve("a", "p", Charge(5))
    with pytest.raises(
        LedgerError, match=r"other.sqlite.*is a ledger of the population 'north' too, and is not counted"
    ):
        open_gatekeeper(tmp_path)
    change_population(tmp_path, "north", "count it")
    assert spent(tmp_path)[:2] == ("north", 5)
    change_population(tmp_path, "north", "count it")
    assert spent(tmp_path)[:2] == ("north", 5)
    open_gatekeeper(tmp_path).close()


def test_both_commands_say_what_they_did(tmp_path: Path) -> None:
    app = typer.Typer()
    mount(app)
    folder = str(old_silo(tmp_path / "silo"))
    done = CliRunner().invoke(app, ["ledger", "migrate", folder, "--population", "clinic north"])
    assert done.exit_code == 0, done.output
    assert "the ledger belongs to the population 'clinic north'" in done.stdout
    assert "spent: 70 of 100 answers" in done.stdout
    done = CliRunner().invoke(app, ["ledger", "population", folder, "south", "--reason", "other patients"])
    assert done.exit_code == 0, done.output
    assert "a new ledger begins for the population 'south'" in done.stdout
    assert CliRunner().invoke(app, ["ledger", "population", folder, "east"]).exit_code == 2
