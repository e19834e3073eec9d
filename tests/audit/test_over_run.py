# SPDX-License-Identifier: Apache-2.0
"""The audit of a finished run: what it finds, and what it refuses to look at."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_audit import said, tiny

from fedcpsc.audit.finished_run import FinishedRun
from fedcpsc.audit.over_run import audit_run
from fedcpsc.commands.run_command import Request, run_once
from fedcpsc.config import load_config
from fedcpsc.errors import AuditError, DataError, PolicyError, RunError
from fedcpsc.gatekeeper.policy import load_policy, save_policy
from fedcpsc.privacy.randomness import NOISE_SOURCE
from fedcpsc.report.audit_folder import read_audit

SMOKE = Path(__file__).parents[2] / "configs/smoke.yaml"
MADE = (
    "data.train_limit=300",
    "data.test_limit=200",
    "teachers.training={kind: plain, canaries: 20}",
    "queries.answers_per_silo=60",
    "queries.rounds=3",
    "student.final_steps=10",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two silos with canaries: (run folder, silos' folder)."""
    base = tmp_path_factory.mktemp("run")
    places = (f"output.root={base / 'runs'}", f"silos.root={base / 'silos'}")
    run_once(Request(SMOKE, (*MADE, *places), local=True), Console(file=io.StringIO()))
    return base / "runs/smoke", base / "silos"


@pytest.fixture(scope="module")
def once(made, tmp_path_factory):
    """Its audit's folder."""
    out = tmp_path_factory.mktemp("audit")
    audited(*made, out)
    return out


@pytest.fixture
def copy(made, tmp_path):
    """The same, to be damaged."""
    for folder in made:
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / made[0].name, tmp_path / made[1].name


def plan(**changed):
    return tiny(fprs=[0.2], **changed)


def audited(run_dir, silos, out, resume=False, **changed):
    return audit_run(plan(**changed), FinishedRun.open(run_dir, silos), out, resume=resume, tell=said)


def test_it_audits_teachers_student_and_transcript(made, once):
    audit = json.loads((once / "audit.json").read_text())
    assert audit["kind"] == "run"
    surfaces = {(row["policy"], row["surface"]) for row in audit["rows"]}
    assert surfaces == {("silo-0", "teacher"), ("silo-1", "teacher"), ("run", "student")}
    for row in audit["rows"]:
        assert row["members"] == row["non_members"] >= 50  # as many of each class
        assert row["targets"] == 1
    bounds = {(bound["policy"], bound["surface"]): bound["canaries"] for bound in audit["bounds"]}
    for i in (0, 1):  # their number is binomial about 20: outside of these limits with probability below 1e-4
        assert bounds[f"silo-{i}", "teacher"] == bounds[f"silo-{i}", "student"]
        assert 5 <= bounds[f"silo-{i}", "teacher"] <= 42
    assert len(bounds) == 4
    for bound in audit["bounds"]:
        assert (bound["unit"], bound["outcome"]) == ("record", None)  # nothing is claimed here
        assert bound["reachable_epsilon"] >= bound["epsilon"]
    assert not audit["verdict"]["violation"]
    assert [point["answers"] for point in audit["stealing"]] == [40, 60, 40, 60]
    assert all(mix["private"] for mix in audit["label_mix"])
    assert {found["silo"] for found in audit["copying"]} == {"silo-0", "silo-1"}
    assert audited(*made, once, resume=True) == audit
    with pytest.raises(AuditError, match="another configuration or run"):
        audited(*made, once, resume=True, seed=3)


def test_private_images_lie_in_the_private_folder_and_no_public_report_opens_them(once):
    shown = {plot.title for plot in read_audit(once, run="smoke", owner=None).plots}
    for owner in ("silo-0", "silo-1"):
        own = {plot.title for plot in read_audit(once, run="smoke", owner=owner).plots}
        assert own - shown == {f"Query images beside the nearest private images of {owner}"}
    assert {path.name for path in once.rglob("neighbours*")} == {p.name for p in (once / "private").iterdir()}
    assert (once / "private").stat().st_mode & 0o077 == 0


def test_a_run_that_may_only_be_read_is_audited_and_stays_as_it_was(copy, tmp_path):
    run = copy[0]
    with (run / "bank/journal.jsonl").open("ab") as file:
        file.write(b'{"answered": "half a li')  # as a process leaves it that was killed at its end
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    opened, watching = [], [True]
    sys.addaudithook(lambda event, given: opened.append(given) if watching and event == "open" else None)
    for folder in folders:
        folder.chmod(0o555)
    try:
        audited(*copy, tmp_path / "out", surfaces=["student"])
    finally:
        watching.clear()
        for folder in folders:
            folder.chmod(0o755)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()} == before
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    assert [name for name, _, flags in opened if str(name).startswith(str(run)) and flags & writes] == []
    assert any(str(name).startswith(str(run / "bank")) for name, _, _ in opened)


def test_silos_with_different_policies_are_each_looked_at_through_their_own(copy):
    """The first silo's was taken for all of them; shadow students are fitted through the most telling one."""
    policy = copy[1] / "1/policy.yaml"
    save_policy(load_policy(policy).model_copy(update={"bits": 32}), policy)
    run = FinishedRun.open(*copy)
    assert [silo.channel.bits for silo in run.silos] == [8, 32]
    assert run.channel.bits == 32


def test_a_run_without_transcript_is_refused(copy, tmp_path):
    shutil.rmtree(copy[0] / "bank")
    with pytest.raises(AuditError, match="no transcript"):
        audited(*copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused(copy, tmp_path):
    (copy[0] / "result.json").unlink()
    with pytest.raises(RunError, match=r"no result.json.*--resume"):
        audited(*copy, tmp_path / "out")


def test_silos_of_other_data_are_refused(copy, tmp_path):
    config = load_config(copy[0] / "config.yaml").model_dump(mode="json") | {"seed": 9}
    (copy[0] / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(DataError, match="not those of its teacher"):
        audited(*copy, tmp_path / "out")


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        (None, "no proof"),
        ({"kind": "dp_sgd", "epsilon": 1.0}, "32-bit seed"),
        ({"kind": "dp_sgd", "epsilon": 1.0, "noise_source": NOISE_SOURCE}, "is no proof"),
        ({"kind": "dp_sgd", "epsilon": 0.1, "delta": 1e-5, "history": [[1.0, 0.5, 50]]}, "proves only"),
    ],
)
def test_a_claim_without_proof_is_refused(copy, tmp_path, privacy, message):
    folder = copy[1] / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    if privacy is not None and "history" in privacy:
        privacy = privacy | {"records": 100, "noise_source": NOISE_SOURCE}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"privacy": privacy}))
    (folder / "policy.yaml").write_text("mechanism: {kind: dp_sgd, epsilon: 1}\n")
    for ledger in folder.glob("ledger.sqlite*"):  # as of a data set that has answered nothing yet
        ledger.unlink()
    with pytest.raises(PolicyError, match=message):
        audited(*copy, tmp_path / "out")


def test_too_few_held_out_images_says_how_many_are_needed(made, tmp_path):
    with pytest.raises(AuditError, match="needs 1,000 scores of non-members, there are"):
        audit_run(tiny(fprs=[0.01]), FinishedRun.open(*made), tmp_path, resume=False, tell=said)
