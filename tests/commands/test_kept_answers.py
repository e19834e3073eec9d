# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc refit` and `fedcpsc run --from --local`: real silos, whose ledgers say who paid."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from support.kept_runs import assert_same_student, files_of
from support.tiny_runs import SMOKE, TINY_SMOKE
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.commands.run_command import Request, run_once
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.report.page import write_report
from fedcpsc.runs.read import gather
from fedcpsc.simulated.refitting import refit_run

runner = CliRunner()
PARTS = ("silos.partition.parts=3", "silos.partition.kind=iid")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run of two silos, whose images were dealt in three parts."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        request = Request(SMOKE, (*TINY_SMOKE, *PARTS, "output.name=first"), local=True)
        run_once(request, Console(file=io.StringIO()))
    return folder


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """The working directory: a copy of that folder."""
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def charged():
    """Images charged in each silo's ledger, by the silo's number."""
    found = {}
    for path in sorted(Path("silos").rglob("ledger.sqlite")):
        with contextlib.closing(Ledger.read(path)) as ledger:
            found[int(path.parent.name)] = ledger.status().spent.answers
    return found


def cli(*words):
    done = runner.invoke(app, list(words))
    return done.exit_code, " ".join((done.output + done.stderr).split())


def test_a_refit_charges_no_ledger_and_reads_the_run_alone(here):
    before, ledgers = files_of(here / "runs/first"), {p: p.read_bytes() for p in here.rglob("ledger.sqlite")}
    run_dir, result = refit_run(Path("runs/first"))
    assert run_dir == here / "runs/first-refit"
    assert_same_student(here / "runs/first", run_dir)
    assert {p: p.read_bytes() for p in here.rglob("ledger.sqlite")} == ledgers, "0 new rows"
    assert files_of(here / "runs/first") == before
    first = gather(here / "runs/first").result
    assert result["ensemble"] == first["ensemble"], "the silos' teachers are those that answered"
    assert [silo["teacher_accuracy"] for silo in result["silos"]] == [s["teacher_accuracy"] for s in first["silos"]]


def test_the_command_makes_a_whole_folder_with_its_page(here):
    code, said = cli("refit", "runs/first", "--set", "student.width=12", "--set", "aggregation.rule=answer_peak_log")
    assert code == 0, said
    assert "first banked 40 images, to which a silo gave up to 40 answers" in said
    assert "none of them asked for here" in said
    assert "answers of first were there when it began" in said
    page = (here / "runs/first-refit/report.html").read_text()
    assert "Where the answers came from" in page
    assert "This run asked no silo anything" in page
    assert str(here) not in page, "paths of the machine stay on it"
    code, said = cli("status", "runs/first-refit")
    assert f"answers from first ({here}/runs/first" in said
    assert "a refit: no silo was asked anything" in said
    code, said = cli("refit", "runs/first")
    assert code == 1
    assert "holds a finished run already" in said
    code, said = cli("refit", "runs/first", "--overwrite")
    assert code == 0
    code, said = cli("export", "runs/first-refit", "--format", "safetensors")
    assert code == 0, said
    card = (here / "runs/first-refit/export/README.md").read_text()
    assert "they were banked by first (finished" in card
    assert "| silo-0 | 40 | 0 |" in card
    assert str(here) not in card


def test_what_a_refit_cannot_do_is_explained(here):
    code, said = cli("refit", "runs/first", "--set", "queries.rounds=4")
    assert code == 2
    assert "fedcpsc run --from" in said
    code, said = cli("refit", "runs/nothing")
    assert code == 1
    assert "is not the folder of a run" in said
    code, said = cli("refit", "runs/first", "--name", "first")
    assert code == 1
    assert "--name of its own" in said
    assert sorted(path.name for path in Path("runs").iterdir()) == ["first"]


def test_a_refit_far_from_data_and_silos_goes_on_without_them(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = here / "runs/first/config.yaml"
    tree.write_text(tree.read_text().replace("source: digits", "source: folder").replace("path: null", "path: /gone"))
    told = []
    run_dir, result = refit_run(here / "runs/first", tell=told.append)
    assert run_dir == here / "runs/first-refit", "beside the run, wherever one works"
    assert any(line.startswith("nothing is measured on held-out images, which cannot be read here") for line in told)
    assert result["student"]["accuracy"] is None
    assert result["simulated"] is False
    assert_same_student(here / "runs/first", run_dir)


def test_a_teacher_that_did_not_answer_is_not_measured(here):
    overrides = (*TINY_SMOKE, *PARTS, "teachers.epochs=2", "output.name=other", "queries.rounds=1")
    run_once(Request(SMOKE, overrides, local=True), Console(file=io.StringIO()))  # which trains other teachers
    told = []
    _, result = refit_run(Path("runs/first"), tell=told.append)
    assert any("holds another teacher than the one that answered" in line for line in told)
    assert result["ensemble"]["accuracy"] is None
    assert result["student"]["accuracy"] is not None


def test_a_fourth_silo_alone_is_charged(here):
    before = charged()
    code, said = cli("run", "--from", "runs/first", "--set", "silos.count=3", "--name", "third", "--local")
    assert code == 0, said
    assert charged() == {**before, 2: 40}
    assert "answered, and charged for, in this run: silo-0 0, silo-1 0, silo-2 40" in said
    run = gather(here / "runs/third")
    assert run.config.queries.start_from == str(here / "runs/first")
    code, said = cli("status", "runs/third")
    assert "silo-2: 40 of 40 answers, 40 of them in this run" in said
    assert f"answers from first ({here}/runs/first" in said
    write_report(here / "runs/third")
    assert "This run began with the answers of first" in (here / "runs/third/report.html").read_text()
    code, said = cli("run", "--from", "runs/first", "--set", "silos.count=3", "--name", "third", "--local", "--resume")
    assert code == 0, said
    assert charged() == {**before, 2: 40}


def test_more_answers_from_a_configuration_of_ones_own(here):
    before = charged()
    more = ["--set", "queries.answers_per_silo=60", "--set", "queries.rounds=2", "--set", "output.name=more"]
    options = [word for item in (*TINY_SMOKE[:3], *TINY_SMOKE[5:], *PARTS) for word in ("--set", item)]
    code, said = cli("run", str(SMOKE), "--from", "runs/first", "--local", *options, *more)
    assert code == 0, said
    assert charged() == {silo: count + 20 for silo, count in before.items()}


def test_a_replaced_teacher_is_told_apart_by_its_ledger(here):
    changes = ["--set", "teachers.epochs=2", "--name", "new-teachers"]
    code, said = cli("run", "--from", "runs/first", "--local", *changes)
    assert code == 0, said
    result = json.loads(Path("runs/new-teachers/result.json").read_text())
    names = [silo["id"] for silo in result["silos"]]
    assert [name.partition("@")[0] for name in names] == ["silo-0", "silo-0", "silo-1", "silo-1"]
    assert [silo["answers_here"] for silo in result["silos"]] == [40, 0, 40, 0]
    assert charged() == {0: 80, 1: 80}
    # one more run from there: these teachers are known, and owe nothing
    code, said = cli("run", "--from", "runs/new-teachers", "--local", "--name", "again")
    assert code == 0, said
    assert charged() == {0: 80, 1: 80}


def test_bad_starts_train_nothing_and_move_nothing(here):
    before = files_of(here)
    start = ("run", "--from", "runs/first", "--local", "--name", "x")
    parts = ("--set", "silos.count=4", "--set", "silos.partition.parts=4")
    for words, reason in (
        (start[:4], "give the new run a --name of its own"),
        (("run", "--local"), "CONFIG=None: is missing"),
        (("run", "--from", "runs/none", "--name", "x", "--local"), "is not the folder of a run"),
        ((*start[:5], "first", "--overwrite"), "cannot begin with its own answers"),
        ((*start, "--seeds", "2"), "makes silos of their own for each seed"),
        ((*start, "--set", "queries.answers_per_silo=20"), "set it to 40"),
        ((*start, *parts), "every simulated silo would get another teacher"),
    ):
        code, said = cli(*words)
        assert code in (1, 2), said
        assert reason in said
    assert files_of(here) == before
