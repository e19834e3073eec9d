# SPDX-License-Identifier: Apache-2.0
"""A run's folder is read whole, never changed, and told plainly where it is damaged."""

import json
import shutil

import pytest

from fedcpsc.errors import BankError, RunError
from fedcpsc.report.page import render
from fedcpsc.runs.read import gather


def edit(path, change):
    read = json.loads(path.read_text())
    change(read)
    path.write_text(json.dumps(read))


def test_a_finished_run_is_read_whole(thirty):
    run = gather(thirty)
    assert (run.name, run.simulated, len(run.rounds)) == ("thirty", True, 30)
    assert [silo.answers for silo in run.silos] == [900, 900, 900, 390, 900]
    assert [silo.answers_left for silo in run.silos] == [4100, 5100, 6100, 10, 8100]
    assert run.silos[3].stopped == "its budget is spent"
    assert run.details.student.sum() == 100
    assert run.details.images.sum() == 900
    assert run.bank.images.shape == (900, 1, 28, 28)


def test_nothing_in_the_folder_is_changed(run):
    journal = run / "bank/journal.jsonl"
    with journal.open("a") as file:
        file.write('{"batch": "half a li')  # another process is writing it
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(run.rglob("*")) if p.is_file()}
    render(gather(run))
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(run.rglob("*")) if p.is_file()} == before


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match="not the folder of a run.*runs/digits"):
        gather(tmp_path)
    with pytest.raises(RunError, match="not the folder of a run"):
        gather(tmp_path / "missing")


def test_an_unfinished_run_tells_what_there_is(run):
    for name in ("result.json", "details.json", "student.safetensors"):
        (run / name).unlink()
    (run / "error.txt").write_text("FederationError: the silos went home\n")
    found = gather(run)
    assert found.result is None
    assert found.details is None
    assert found.simulated is False
    assert [(silo.answers, silo.answers_left) for silo in found.silos][3] == (390, 10)
    assert found.error == "FederationError: the silos went home"


def test_a_run_that_has_only_begun_has_a_report(run):
    for name in ("metrics.jsonl", "result.json", "details.json"):
        (run / name).unlink()
    shutil.rmtree(run / "bank")
    assert "has not finished: 0 of 30 rounds" in render(gather(run))


def test_a_damaged_line_is_named_and_half_a_last_line_left_out(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines) + '\n{"phase": "rou')
    assert len(gather(run).lines) == len(lines)
    lines[6] = lines[6][:40]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 7.*damaged.*delete that line"):
        gather(run)
    lines[6] = "[1]"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="line 7"):
        gather(run)


def test_of_lines_that_a_resumed_run_wrote_again_the_last_counts(run):
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    again = lines[:20] + [line | {"bank": 7} for line in lines[15:]]
    path.write_text("".join(json.dumps(line) + "\n" for line in again))
    found = gather(run).lines
    assert [line["round"] for line in found if line["phase"] == "round"] == list(range(1, 31))
    assert [line["bank"] == 7 for line in found] == [False] * 15 + [True] * (len(lines) - 15)


@pytest.mark.parametrize("name", ["result.json", "details.json"])
def test_a_damaged_file_is_named(run, name):
    (run / name).write_text('{"half": ')
    with pytest.raises(RunError, match=f"{name}.*damaged"):
        gather(run)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("result.json", lambda read: read.pop("silos")),
        ("result.json", lambda read: read["silos"][0].pop("answers")),
        ("details.json", lambda read: read.pop("contribution")),
        ("details.json", lambda read: read["confusion"].update(student=[[1, 2], [3]])),
    ],
)
def test_a_file_that_lacks_something_is_told(run, name, change):
    edit(run / name, change)
    with pytest.raises(RunError, match="lack something"):
        gather(run)


def test_a_missing_bank_is_no_error_and_a_damaged_one_is(run):
    (run / "bank/images.u8").write_bytes(b"short")
    with pytest.raises(BankError, match=r"images\.u8.*shorter than its journal"):
        gather(run)
    journal = run / "bank/journal.jsonl"
    journal.write_text(journal.read_text().replace('"batch"', '"butch"', 1))
    with pytest.raises(BankError, match="journal.*damaged"):
        gather(run)
    journal.write_text('{"format": 1}\n')
    with pytest.raises(BankError, match="journal.*damaged"):
        gather(run)
    shutil.rmtree(run / "bank")
    found = gather(run)
    assert found.bank is None
    assert "holds no answered images" in render(found)


def test_a_run_of_an_earlier_version_has_a_report(run):
    (run / "details.json").unlink()
    edit(run / "result.json", lambda read: [read.pop("simulated"), *(s.pop("reply_seconds") for s in read["silos"])])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("silos", None)
    lines[10]["waiting_s"] = 0.0  # such a run counted its waiting from each resumption anew
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "holds no details.json" in render(gather(run))


def in_the_keys_of_earlier_versions(run):
    """Writes the run's figures as schema 1 did."""

    def older(read):
        read |= {"schema": 1, "queries_per_silo": read.pop("answers_per_silo")}
        for silo in read["silos"]:
            silo |= {"queries_answered": silo.pop("answers"), "left": silo.pop("stopped")}

    edit(run / "result.json", older)
    older_lines(run / "metrics.jsonl")


def older_lines(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for silo in (silo for line in lines for silo in line.get("silos", {}).values()):
        silo |= {"left": silo.pop("answers_left"), "gone": silo.pop("stopped") or ""}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_in_the_keys_of_earlier_versions_tells_the_same(run, finished):
    if not finished:
        (run / "result.json").unlink()
    before = gather(run)
    if finished:
        in_the_keys_of_earlier_versions(run)
    else:
        older_lines(run / "metrics.jsonl")
    after = gather(run)
    assert (after.silos, after.lines, after.result) == (before.silos, before.lines, before.result)
    assert after.silos[3].stopped == "its budget is spent"
    assert render(after) == render(before)
