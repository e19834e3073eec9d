# SPDX-License-Identifier: Apache-2.0
"""Two silos that share no class and each say "none of mine": from their files to a student, and the audit of that."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from support.picture_sources import png, write_parquet
from support.tiny_audit import said, tiny

from fedcpsc.audit.finished_run import FinishedRun
from fedcpsc.audit.over_run import audit_run
from fedcpsc.commands.run_command import Request, run_once
from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.silo_config import DataConfig

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def pages(images, labels):
    """The digits 0 to 4 as they are, light on dark; 5 to 9 dark on light, as another scanner made them."""
    return [png(255 - one[0] if label > 4 else one[0]) for one, label in zip(images, labels, strict=True)]


def run(base, name, outliers):
    """Result of a run in `base / name`; a run folder and the silos are left there."""
    tree = {
        "data": {"source": "parquet", "path": str(base / "data")},
        "silos": {
            "count": 2,
            "root": str(base / name / "silos"),
            "partition": {"kind": "own_files"},
            "label_sets": "own",
            "policy": {"answers": 1000},
        },
        "teachers": {"width": 8, "epochs": 8, "outliers": outliers},
        "queries": {"answers_per_silo": 600, "rounds": 3},
        "student": {"width": 8, "final_steps": 300, "shift": 0},
        "output": {"root": str(base / name / "runs"), "name": "two"},
        "runtime": {"device": "cpu", "threads": 1},
    }
    path = base / f"{name}.yaml"
    path.write_text(json.dumps(tree))
    run_once(Request(path, (), local=True), Console(file=io.StringIO()))
    return json.loads((base / name / "runs/two/result.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of two runs, and their results: with outliers, and with classes alone."""
    base = tmp_path_factory.mktemp("two")
    train, held_out = load_train(DataConfig(), 1), load_evaluation(DataConfig(), 1)
    assert held_out is not None
    for silo in (0, 1):
        own = train.subset(np.flatnonzero(train.labels // 5 == silo))
        files, names = pages(own.images, own.labels), NAMES[5 * silo : 5 * silo + 5]
        write_parquet(base / f"data/{silo}/train.parquet", files, (own.labels - 5 * silo).tolist(), list(names))
    shown = pages(held_out.images, held_out.labels)
    write_parquet(base / "data/test.parquet", shown, held_out.labels.tolist(), list(NAMES))
    return base, run(base, "with", {"count": 2000}), run(base, "without", None)


def test_a_silo_that_says_none_of_mine_leaves_the_image_to_the_one_that_knows_it(made):
    _, with_none, without = made
    assert with_none["class_names"] == without["class_names"] == list(NAMES)
    assert [silo["none_class"] for silo in with_none["silos"]] == [True, True]
    assert [silo["none_class"] for silo in without["silos"]] == [False, False]
    assert with_none["ensemble"]["accuracy"] > 0.88
    assert with_none["ensemble"]["accuracy"] > without["ensemble"]["accuracy"] + 0.05
    for silo in with_none["silos"]:  # of half of the images each knows the class
        assert 0.4 < silo["teacher_accuracy"] <= 0.5


def test_the_audit_compares_a_copy_with_what_a_teacher_says_of_its_own_classes(made):
    base, *_ = made
    folder = base / "with"
    opened = FinishedRun.open(folder / "runs/two", folder / "silos")
    audit_run(tiny(fprs=[0.2]), opened, base / "audit", resume=False, tell=said)
    audit = json.loads((base / "audit/audit.json").read_text())
    assert {(row["policy"], row["surface"]) for row in audit["rows"]} >= {("silo-0", "teacher"), ("silo-1", "teacher")}
    assert all(0 <= point["agreement"] <= 1 for point in audit["stealing"])
