# SPDX-License-Identifier: Apache-2.0
"""Whatever is damaged in a run's folder, every command that reads it says so in words and writes nothing."""

import io
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_runs import SMOKE, TINY_SMOKE
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.commands.run_command import Request, run_once

AUDIT = Path(__file__).parents[2] / "configs/audit_digits_run.yaml"
EVERY = ("status", "report", "export", "audit", "run")
WITH_STUDENT = ("export", "audit", "run")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run and its silos, below one folder. Not to be changed."""
    base = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        run_once(Request(SMOKE, TINY_SMOKE, local=True), Console(file=io.StringIO()))
    (base / "runs/smoke/report.html").unlink()
    return base


@pytest.fixture
def base(made, tmp_path, monkeypatch):
    """A copy to be damaged, as the working directory."""
    base = shutil.copytree(made, tmp_path / "base")
    monkeypatch.chdir(base)
    return base


def command(name: str) -> list[str]:
    run, silos = "runs/smoke", "silos/smoke"
    options = [part for item in TINY_SMOKE for part in ("--set", item)]
    return {
        "status": ["status", run],
        "report": ["report", run],
        "export": ["export", run, "--format", "safetensors"],
        "audit": ["audit", str(AUDIT), "--run", run, "--silos", silos],
        "run": ["run", str(SMOKE), "--local", "--resume", *options],
    }[name]


def content(base: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(base.rglob("*")) if p.is_file()}


def refused(name: str, base: Path, code: int = 1) -> str:
    """The message of a command that gives up on the run in words, and leaves every byte as it was."""
    before = content(base)
    done = CliRunner().invoke(app, command(name))
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    assert re.fullmatch(r"\w+ error: .+=.+: .+; .+\n", done.stderr), "value, constraint and remedy"
    assert content(base) == before, "something was written"
    return done.stderr


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def not_text(raw: bytes) -> bytes:
    return b"\xff\xfe" + raw


def not_a_number(raw: bytes) -> bytes:
    return re.sub(rb"(?<=[ \[])\d[\d.]*", b"NaN", raw, count=1)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("result.json", cut),
        ("result.json", not_text),
        ("result.json", not_a_number),
        ("details.json", cut),
        ("details.json", not_text),
        ("details.json", not_a_number),
        ("metrics.jsonl", cut),
        ("metrics.jsonl", not_text),
        ("metrics.jsonl", not_a_number),
        ("timeline.jsonl", not_text),
        ("timeline.jsonl", not_a_number),
        ("bank/journal.jsonl", cut),
        ("bank/journal.jsonl", not_text),
        ("bank/images.u8", cut),
        ("bank/answers-0.f32", cut),
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_a_damaged_file_of_a_finished_run(base, name, file, damage):
    path = base / "runs/smoke" / file
    path.write_bytes(damage(path.read_bytes()))
    assert path.name in refused(name, base)


@pytest.mark.parametrize("name", WITH_STUDENT)
@pytest.mark.parametrize("damage", [cut, not_text, lambda raw: b"", lambda raw: raw[:-1]])
def test_a_damaged_student(base, name, damage):
    path = base / "runs/smoke/student.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert "student.safetensors" in refused(name, base)


@pytest.mark.parametrize("name", EVERY)
def test_a_folder_in_a_files_place(base, name):
    path = base / "runs/smoke/result.json"
    path.unlink()
    path.mkdir()
    assert "result.json" in refused(name, base)


@pytest.mark.parametrize("name", EVERY)
def test_a_configuration_that_is_no_text_is_the_one_error_of_class_2(base, name):
    path = base / "runs/smoke/config.yaml"
    path.write_bytes(not_text(path.read_bytes()))
    assert "config.yaml" in refused(name, base, code=2)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("checkpoint/state.pt", cut),
        ("checkpoint/state.pt", not_text),
        ("metrics.jsonl", not_text),
        ("timeline.jsonl", not_text),
        ("bank/journal.jsonl", cut),
        ("bank/journal.jsonl", lambda raw: b""),
        ("bank/journal.jsonl", not_text),
        ("bank/answers-1.f32", cut),
    ],
)
def test_an_unfinished_run_is_not_gone_on_with_over_a_damaged_file(base, file, damage):
    run = base / "runs/smoke"
    for name in ("result.json", "details.json", "student.safetensors"):
        (run / name).unlink()
    path = run / file
    path.write_bytes(damage(path.read_bytes()))
    assert path.name in refused("run", base)


def test_what_the_remedy_of_a_damaged_result_says_brings_the_same_run_back(base):
    run = base / "runs/smoke"
    before = (run / "student.safetensors").read_bytes()
    (run / "result.json").write_bytes(cut((run / "result.json").read_bytes()))
    assert "delete result.json and let the run end again with --resume" in refused("run", base)
    (run / "result.json").unlink()
    assert CliRunner().invoke(app, command("run")).exit_code == 0
    assert (run / "student.safetensors").read_bytes() == before
