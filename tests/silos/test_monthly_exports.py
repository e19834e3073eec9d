# SPDX-License-Identifier: Apache-2.0
"""A clinic that exports its growing data every month: one ledger and one budget, however often it trains."""

import numpy as np
import pytest
from support.picture_sources import pictures, png, write_parquet

from fedcpsc.config import RunConfig
from fedcpsc.errors import PolicyError
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.privacy.accounting import compose, dp_sgd_epsilon
from fedcpsc.silos import maker as silo_maker
from fedcpsc.silos import replacing
from fedcpsc.silos.folder import MAKING_FILE, PAST
from fedcpsc.silos.make import make_silos
from fedcpsc.teachers.manifest import load_manifest
from fedcpsc.training.plan import DpSgdTraining, planned_history

DELTA = 1e-5
TRAINING = {"kind": "dp_sgd", "epsilon": 1.0, "delta": DELTA, "records": 200}
EPOCHS, BATCH = 3, 50
CLASSES = ["low", "middle", "high"]


@pytest.fixture(scope="module")
def enough_for_two() -> float:
    """An epsilon that two such trainings keep by the looser accountant, and three break by the tighter one."""
    plan = DpSgdTraining.model_validate(TRAINING)
    history = list(planned_history(plan, EPOCHS, BATCH, 200))
    two, three = compose(0.0, DELTA, [history] * 2), dp_sgd_epsilon(history * 3, DELTA)
    assert two < three
    return (two + three) / 2


def clinic(data, epsilon: float) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"source": "parquet", "path": str(data)},
            "silos": {
                "count": 1,
                "partition": {"kind": "own_files"},
                "policy": {"mechanism": {"kind": "dp_sgd", "epsilon": epsilon, "delta": DELTA}},
            },
            "teachers": {
                "architecture": "scattering",
                "training": TRAINING,
                "epochs": EPOCHS,
                "batch_size": BATCH,
                "shift": 0,
            },
            "evaluation": {"held_out": False},
            "runtime": {"device": "cpu", "threads": 1},
        }
    )


def export(data, records: int) -> None:
    images = pictures(records, size=8)
    labels = (np.arange(records) % 3).tolist()
    write_parquet(data / "0" / "train.parquet", [png(image) for image in images], labels, CLASSES)


def content(folder) -> dict:
    """Every file but what an open ledger leaves beside it."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm", "-journal", ".lock"))
    }


def trainings(folder) -> list[str]:
    """Versions of the teachers that the ledger records, oldest first."""
    mark = mark_path(folder, load_policy(folder / POLICY_FILE))
    ledger = Ledger.open(folder / LEDGER_FILE, "silo-0", high_water_mark=mark)
    found = [row["model"] for row in ledger.releases() if row["mechanism"] == "dp_sgd"]
    ledger.verify()
    ledger.close()
    return found


def test_the_third_training_is_refused_before_it_begins_and_nothing_changes(tmp_path, enough_for_two, monkeypatch):
    config, folder = clinic(tmp_path / "data", enough_for_two), tmp_path / "silos" / "0"
    teachers = []
    for records in (200, 206):
        export(tmp_path / "data", records)
        (report,) = make_silos(config, tmp_path / "silos")
        assert not report.reused
        teachers.append(load_manifest(folder))
    assert teachers[0].dataset_id != teachers[1].dataset_id
    assert teachers[0].population == teachers[1].population == "silo-0"
    assert trainings(folder) == [teacher.weights_sha256 for teacher in teachers]  # both in the one ledger
    assert [path.name for path in (folder / PAST).iterdir()] == [f"teacher-{teachers[0].weights_sha256[:12]}"]

    export(tmp_path / "data", 213)
    before = content(folder)
    monkeypatch.setattr(silo_maker, "train_teacher", None)  # it would be the third
    with pytest.raises(PolicyError, match="mechanism.epsilon"):
        make_silos(config, tmp_path / "silos")
    assert content(folder) == before
    # last month's export is still the silo's
    export(tmp_path / "data", 206)
    (report,) = make_silos(config, tmp_path / "silos")
    assert report.reused


@pytest.mark.parametrize("recorded", [False, True], ids=["before the ledger knows", "after the ledger knows"])
def test_a_crash_does_not_cost_the_population_a_second_training(recorded, tmp_path, monkeypatch):
    config, folder = clinic(tmp_path / "data", 1.1), tmp_path / "silos" / "0"
    export(tmp_path / "data", 200)

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if recorded:
            patched.setattr(replacing.Replacement, "_move", killed)
        else:
            patched.setattr(replacing, "record_training", killed)
        with pytest.raises(KeyboardInterrupt):
            make_silos(config, tmp_path / "silos")
    assert (folder / MAKING_FILE).exists()
    monkeypatch.setattr(silo_maker, "train_teacher", None)
    (report,) = make_silos(config, tmp_path / "silos")
    assert report.reused
    assert trainings(folder) == [load_manifest(folder).weights_sha256]


def test_noise_of_another_source_is_trained_anew(tmp_path, monkeypatch, enough_for_two):
    export(tmp_path / "data", 200)
    config = clinic(tmp_path / "data", enough_for_two)
    make_silos(config, tmp_path / "silos")
    assert make_silos(config, tmp_path / "silos")[0].reused
    monkeypatch.setattr(silo_maker, "NOISE_SOURCE", "another")
    assert not make_silos(config, tmp_path / "silos")[0].reused
    assert len(trainings(tmp_path / "silos" / "0")) == 2
