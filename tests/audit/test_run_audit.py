# SPDX-License-Identifier: Apache-2.0
"""The suite end to end, small: what it leaves, how it goes on, when it says no, whom it accuses."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.tiny_audit import BROKEN, said, tiny

from fedcpsc.audit import stages
from fedcpsc.audit.bounds import one_run_epsilon, one_run_mu
from fedcpsc.audit.plots import save_neighbours, save_plots
from fedcpsc.audit.run import audit_from_scratch
from fedcpsc.errors import AuditError
from fedcpsc.report.audit_folder import read_audit as read_for_report
from fedcpsc.runs.audit_file import read_audit_file


def strip(audit):
    return {key: value for key, value in audit.items() if key not in ("seconds", "commit")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("audit") / "whole"
    policies = [
        {"kind": "probabilities"},
        {"kind": "label"},
        {"kind": "dp_sgd", "epsilon": 1, "epochs": 2, "batch_size": 30},
    ]
    config = tiny(policies=policies)
    return config, out, audit_from_scratch(config, out, resume=False, tell=said)


def test_it_leaves_what_the_report_reads(whole):
    _, out, audit = whole
    assert audit == json.loads((out / "audit.json").read_text())
    rows = {(row["policy"], row["surface"], row["answers"], row["attack"]) for row in audit["rows"]}
    wanted = ("loss", "lira_online", "lira_offline", "rmia")
    assert {("probabilities", "teacher", None, name) for name in wanted} <= rows
    assert {row for row in rows if row[:2] == ("label", "teacher")} == {
        ("label", "teacher", None, name) for name in ("lira_online", "lira_offline", "label_only")
    }
    assert ("probabilities", "student", 40, "lira_online") in rows
    assert ("probabilities", "student", 40, "rmia") not in rows  # fewer answers are one point of a curve
    assert len(audit["bounds"]) == 6
    for bound in audit["bounds"]:
        assert bound["canaries"] == 8 * 20
        assert bound["guesses"] == 16
        assert bound["unit"] == "record"
        assert bound["reachable_epsilon"] == one_run_epsilon(160, 16, 16, bound["delta"], bound["confidence"])
        assert bound["reachable_mu"] == one_run_mu(160, 16, 16, bound["confidence"])
    facts = read_for_report(out, run="any", owner=None)
    assert [plot.title for plot in facts.plots] == [plot["title"] for plot in audit["plots"]]
    assert {plot["file"] for plot in audit["plots"]} == {"roc.png", "epsilon.png", "leakage.png", "frontier.png"}
    assert all(plot["alt"] and not plot["private"] for plot in audit["plots"])


def test_overfitted_teachers_leak_and_private_ones_less(whole):
    _, _, audit = whole
    auc = {(r["policy"], r["surface"]): r["auc"] for r in audit["rows"] if r["attack"] == "lira_online"}
    assert auc["probabilities", "teacher"] > 0.65
    assert auc["label", "teacher"] < auc["probabilities", "teacher"]
    assert auc["DP-SGD 1", "teacher"] < 0.56
    assert not audit["verdict"]["violation"]
    assert audit["verdict"]["testable"]
    assert "No attack contradicts these claims, which this audit could have refuted" in audit["verdict"]["text"]


def test_a_claim_out_of_reach_is_told_before_the_audit_and_in_its_verdict(tmp_path):
    warned, steps = [], []
    policy = {"kind": "dp_sgd", "epsilon": 8, "epochs": 2, "batch_size": 30}
    config = tiny(policies=[policy], surfaces=["teacher"])

    def warn(text):
        assert not steps
        warned.append(text)

    def tell(done, total, text):
        steps.append(text)

    audit = audit_from_scratch(config, tmp_path, resume=False, tell=tell, warn=warn)
    (text,) = warned
    assert "with 16 guesses this audit could have shown at most" in text
    assert f"NOT TESTED: {text}." in audit["verdict"]["text"]
    assert audit["verdict"]["testable"] is False
    assert "contradicts" not in audit["verdict"]["text"]
    assert audit["bounds"][0]["testable"] is False


def test_a_claim_without_canaries_was_not_tested(tmp_path):
    policy = {"kind": "dp_sgd", "epsilon": 1, "epochs": 2, "batch_size": 30}
    config = tiny(policies=[policy], surfaces=["teacher"], canaries={"count": 0})
    audit = audit_from_scratch(config, tmp_path, resume=False, tell=said)
    assert audit["verdict"]["testable"] is False
    assert "no canary was planted" in audit["verdict"]["text"]


def test_finished_once_finished_for_good(whole):
    config, out, audit = whole
    stamp = (out / "audit.json").stat().st_mtime_ns
    assert audit_from_scratch(config, out, resume=True, tell=said) == audit
    assert (out / "audit.json").stat().st_mtime_ns == stamp
    with pytest.raises(AuditError, match="holds an audit already"):
        audit_from_scratch(config, out, resume=False, tell=said)
    with pytest.raises(AuditError, match="another configuration"):
        audit_from_scratch(config.model_copy(update={"seed": 2}), out, resume=True, tell=said)


class Killed(BaseException):
    """As SIGKILL would: nothing catches it."""


def test_killed_between_stages_it_gives_the_same_numbers(tmp_path, monkeypatch):
    config = tiny(canaries={"count": 0})
    undisturbed = audit_from_scratch(config, tmp_path / "a", resume=False, tell=said)
    saving, calls = stages.save_file, []

    def dying(arrays, path):
        calls.append(path)
        if len(calls) == 2:
            raise Killed  # the second stage was computed and is lost
        saving(arrays, path)

    monkeypatch.setattr(stages, "save_file", dying)
    with pytest.raises(Killed):
        audit_from_scratch(config, tmp_path / "b", resume=False, tell=said)
    assert [path.name for path in (tmp_path / "b/stages").iterdir()] == ["teachers-plain.safetensors"]
    resumed = audit_from_scratch(config, tmp_path / "b", resume=True, tell=said)
    assert strip(resumed) == strip(undisturbed)
    assert (tmp_path / "a/roc.png").read_bytes() == (tmp_path / "b/roc.png").read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}'])
def test_a_damaged_audit_is_named_with_the_remedy(tmp_path, content):
    (tmp_path / "audit.json").write_text(content)
    with pytest.raises(AuditError, match=r"audit\.json.*run the audit again"):
        read_audit_file(tmp_path)


def test_a_damaged_stage_is_named_with_the_remedy(whole, tmp_path):
    config, _, _ = whole
    folder = stages.AuditFolder(tmp_path / "x", config, resume=False)
    path = tmp_path / "x/stages/one.safetensors"
    assert folder.stage("one", lambda: {"a": np.ones(2)})["a"].tolist() == [1, 1]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(AuditError, match="delete that file"):
        folder.stage("one", lambda: {"a": np.ones(2)})


def test_too_few_members_says_how_many_are_needed(tmp_path):
    with pytest.raises(AuditError, match=r"needs 10,000 scores of non-members, there are 1,[12]\d\d .*raise pool"):
        audit_from_scratch(tiny(fprs=[0.001]), tmp_path, resume=False, tell=said)
    assert not (tmp_path / "audit.json").exists()


def test_too_few_shadows_are_named_before_any_is_trained(tmp_path):
    with pytest.raises(AuditError, match="only 0 of them with it or without it.*raise shadows.count"):
        audit_from_scratch(tiny(shadows={"count": 4}, canaries={"count": 0}), tmp_path, resume=False, tell=said)


def test_a_pool_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(AuditError, match="at most 1293 training images"):
        audit_from_scratch(tiny(pool=2000), tmp_path, resume=False, tell=said)


def test_training_that_breaks_its_claim_is_accused(tmp_path):
    config = tiny(policies=[BROKEN], surfaces=["teacher"], canaries={"count": 60, "audited": 8, "guesses": 0.2})
    audit = audit_from_scratch(config, tmp_path, resume=False, tell=said)
    (bound,) = audit["bounds"]
    assert bound["epsilon"] > 1
    assert bound["violated"]
    assert bound["accounted_epsilon"] is None  # without noise there is no epsilon
    assert audit["verdict"]["violation"]
    assert "VIOLATION: DP-SGD 1, noise 0" in audit["verdict"]["text"]


def test_a_stage_that_several_policies_share_is_timed_once(tmp_path):
    folder = stages.AuditFolder(tmp_path, tiny(), resume=False)
    for _ in range(3):
        folder.stage("teachers", lambda: {"x": np.zeros(1)})
    stored = load_file(tmp_path / "stages/teachers.safetensors")["seconds"]
    assert folder.seconds == stored[0] > 0


def test_a_policys_name_is_no_formula_in_the_pictures(whole, tmp_path):
    _, _, audit = whole
    named = json.dumps(audit).replace('"policy": "', r'"policy": "_$\\frac{ $ ^ [b] <i> 犬 ')
    plots = save_plots(tmp_path, json.loads(named))
    assert len(plots) == 4
    assert all((tmp_path / plot["file"]).stat().st_size > 1000 for plot in plots)
    images = np.zeros((2, 1, 8, 8), np.uint8)
    save_neighbours(tmp_path, r"$\frac{ $", images, images, np.zeros(2))
