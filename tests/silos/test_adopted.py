# SPDX-License-Identifier: Apache-2.0
"""A teacher that its owner brought is used as it is: nothing is trained, read or overwritten for it."""

import json

import pytest
from support.adopted_silo import SHAPE, adopt, fingerprints, onnx_model
from support.picture_sources import pictures, png, write_parquet
from test_silos import config

from fedcpsc.commands.deploy_local import LocalDeployment, deploy_local
from fedcpsc.commands.run_command import Request, run_seeds
from fedcpsc.data import silo_images
from fedcpsc.data.sources import load_evaluation
from fedcpsc.errors import ConfigError, FederationError, LedgerError, ManifestError, PolicyError, SiloError
from fedcpsc.gatekeeper.policy import POLICY_FILE
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.silos import folder as silo_folder
from fedcpsc.silos.make import make_silos
from fedcpsc.simulated.one_process import run_local
from fedcpsc.teachers.manifest import MANIFEST_FILE, WEIGHTS_FILE, load_manifest
from fedcpsc.teachers.opening import open_teacher


def test_beside_trained_silos_it_is_used_as_it_is_and_they_are_what_they_were_without_it(tmp_path):
    make_silos(config(), tmp_path / "all")
    folder = adopt(tmp_path / "mixed" / "1")
    before, ledger = fingerprints(folder), (folder / LEDGER_FILE).read_bytes()
    reports = make_silos(config(), tmp_path / "mixed")
    assert [report.silo for report in reports] == ["silo-0", "clinic-north"]
    assert [report.adopted for report in reports] == [False, True]
    assert fingerprints(folder) == before
    assert (folder / LEDGER_FILE).read_bytes() == ledger
    assert load_manifest(tmp_path / "mixed" / "0") == load_manifest(tmp_path / "all" / "0")
    evaluation = load_evaluation(config().data, config().seed)
    right = open_teacher(folder, load_manifest(folder)).predict(evaluation.images).argmax(1) == evaluation.labels
    assert reports[1].accuracy == pytest.approx(right.mean())
    told = f"clinic-north: onnx, adopted, used as it is, {100 * right.mean():.1f} % of held-out images right"
    assert str(reports[1]) == told


def test_another_configuration_or_seed_does_not_touch_it(tmp_path):
    folder = adopt(tmp_path / "0")
    before = fingerprints(folder)
    for again in (config(), config(seed=2), config(teachers={"epochs": 2}), config(silos={"policy": {"answers": 9}})):
        make_silos(again, tmp_path, only=0)
    assert fingerprints(folder) == before


def test_no_private_data_is_looked_for(tmp_path, monkeypatch):
    write_parquet(tmp_path / "data" / "1" / "train.parquet", [png(p) for p in pictures(8, size=8)], [0, 1, 2, 3] * 2)
    own = config(
        data={"source": "parquet", "path": str(tmp_path / "data")},
        silos={"count": 2, "partition": {"kind": "own_files"}, "policy": {}},
        evaluation={"held_out": False},
    )
    adopt(tmp_path / "silos" / "0", onnx_model(4), classes=4)
    reports = make_silos(own, tmp_path / "silos")
    assert [(report.adopted, report.train_size) for report in reports] == [(True, 480), (False, 8)]
    # where all are adopted, dealt images are not even loaded
    adopt(tmp_path / "adopted" / "0", silo="a")
    adopt(tmp_path / "adopted" / "1", silo="b")
    monkeypatch.setattr(silo_images, "load_train", None)
    reports = make_silos(config(), tmp_path / "adopted")
    assert [report.silo for report in reports] == ["a", "b"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": 7}, r"silo 1 \(clinic-north\): classes=7: .* have 10 classes"),
        (
            {"image_shape": (1, 9, 9)},
            r"silo 1 \(clinic-north\): image_shape=\(1, 9, 9\): .* have image_shape \(1, 8, 8\)",
        ),
        ({"silo": "silo-0"}, "silo='silo-0': silos 1 and 0 have this name"),
    ],
    ids=["classes", "shape", "name"],
)
def test_one_that_does_not_fit_the_run_is_told_before_anything_is_trained(facts, message, tmp_path):
    adopt(tmp_path / "1", onnx_model(facts.get("classes", 10), facts.get("image_shape", SHAPE)), **facts)
    for held_out in (True, False):
        with pytest.raises(FederationError, match=message):
            make_silos(config(evaluation={"held_out": held_out}), tmp_path)
        assert not (tmp_path / "0" / WEIGHTS_FILE).exists()


def test_adopted_silos_that_do_not_fit_each_other_are_told(tmp_path):
    adopt(tmp_path / "0", silo="a")
    adopt(tmp_path / "1", onnx_model(7), classes=7, silo="b")
    with pytest.raises(FederationError, match=r"silo 1 \(b\): classes=7: .*silo 0 \(a\) have 10 classes"):
        make_silos(config(evaluation={"held_out": False}), tmp_path)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (WEIGHTS_FILE, ManifestError),
        (MANIFEST_FILE, ManifestError),
        (POLICY_FILE, PolicyError),
        (LEDGER_FILE, LedgerError),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_one_that_is_damaged_is_refused_and_left_alone(name, error, damage, tmp_path):
    folder = adopt(tmp_path / "0")
    if damage == "gone":
        (folder / name).unlink()
    else:
        cut = {POLICY_FILE: b"answers: [", LEDGER_FILE: b"SQLite"}
        (folder / name).write_bytes(cut.get(name) or (folder / name).read_bytes()[:-40])
    before = fingerprints(folder)
    with pytest.raises(error):
        make_silos(config(), tmp_path, only=0)
    assert fingerprints(folder) == before


@pytest.mark.parametrize("facts", [{"classes": 7}, {"image_shape": (1, 9, 9)}], ids=["classes", "shape"])
def test_one_whose_model_is_not_what_its_manifest_says_fails_its_trial_and_its_ledger_stays(facts, tmp_path):
    folder = adopt(tmp_path / "0", **facts)
    ledger = (folder / LEDGER_FILE).read_bytes()
    with pytest.raises(SiloError, match="invented image|shape|classes"):
        make_silos(config(evaluation={"held_out": False}), tmp_path, only=0)
    assert (folder / LEDGER_FILE).read_bytes() == ledger


def test_one_on_a_read_only_file_system_is_told_in_a_line(tmp_path, monkeypatch):
    adopt(tmp_path / "0")
    monkeypatch.setattr(silo_folder.os, "access", lambda path, mode: False)
    with pytest.raises(SiloError, match="silo='.*0': is read-only here; make the folder and its file system writable"):
        make_silos(config(), tmp_path, only=0)


def test_a_whole_run_in_one_process_charges_its_ledger_and_touches_nothing_else(tmp_path):
    folder = adopt(tmp_path / "silos" / "1")
    small = config(
        queries={"answers_per_silo": 40, "rounds": 2},
        student={"width": 4, "final_steps": 2, "steps_per_round": 2},
        synthesis={"steps": 2, "width": 8},
        output={"root": str(tmp_path), "name": "run"},
    )
    before = fingerprints(folder)
    make_silos(small, tmp_path / "silos")
    result = run_local(small, tmp_path / "run", tmp_path / "silos", resume=False, on_line=lambda line: None)
    assert {silo["id"]: silo["answers"] for silo in result["silos"]} == {"silo-0": 40, "clinic-north": 40}
    make_silos(small, tmp_path / "silos")
    assert fingerprints(folder) == before
    ledger = Ledger.open(folder / LEDGER_FILE, "clinic-north")
    assert ledger.verify().spent.answers == 40
    ledger.close()


def test_silos_of_other_seeds_and_other_numbers_are_not_trained_in_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adopt(tmp_path / "silos" / "0")
    (tmp_path / "run.yaml").write_text(json.dumps(config().model_dump(mode="json")))
    request = Request(tmp_path / "run.yaml")
    with pytest.raises(
        ConfigError, match=r"--seeds=3: takes silos from another folder.*\(clinic-north\); run each seed"
    ):
        run_seeds(request, 3, None)
    with pytest.raises(
        ConfigError, match=r"--silos=3: takes silos from another folder.*\(clinic-north\); leave it out"
    ):
        deploy_local(LocalDeployment(request, tmp_path / "deployment", 3), None)
    assert [path.name for path in (tmp_path / "silos").iterdir()] == ["0"]
