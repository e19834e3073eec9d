# SPDX-License-Identifier: Apache-2.0
"""The audit of a run whose silos know different classes works in the federation's."""

import numpy as np
import pytest

from fedcpsc.audit.finished_run import FinishedRun
from fedcpsc.audit.run_extras import label_mixes
from fedcpsc.config import RunConfig
from fedcpsc.silos.make import make_silos
from fedcpsc.simulated.one_process import run_local
from fedcpsc.typed_yaml import validate


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    base = tmp_path_factory.mktemp("label sets")
    tree = {
        "data": {"source": "digits", "classes": ["0", "1", "7", "4"], "train_limit": 120, "test_limit": 80},
        "silos": {
            "count": 2,
            "partition": {"kind": "class_sets", "class_sets": [["7", "0"], ["1", "0", "4"]]},
            "label_sets": "own",
        },
        "teachers": {"epochs": 20, "width": 8},
        "queries": {"answers_per_silo": 40, "rounds": 2},
        "synthesis": {"prior_share": 1.0},
        "student": {"width": 4, "committee": 1, "steps_per_round": 2, "final_steps": 4},
        "aggregation": {"rule": "answer_peak_log"},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    config = validate(RunConfig, tree, "test")
    make_silos(config, base / "silos")
    run_local(config, base / "run", base / "silos", resume=False, on_line=lambda line: None)
    return FinishedRun.open(base / "run", base / "silos")


def test_silos_and_held_out_images_have_the_federations_labels(audited):
    names = audited.bank.label_sets.names
    assert names == ("0", "7", "1", "4"), "silo-0's classes, in the order of the data, and what silo-1 adds"
    assert audited.held_out.class_names == names
    for silo, own in zip(audited.silos, ({"0", "7"}, {"0", "1", "4"}), strict=True):
        assert {names[label] for label in np.unique(silo.images.labels)} == own
        answers = silo.own(audited.held_out.images)
        assert answers.shape == (len(audited.held_out), 4)
        unknown = [k for k, name in enumerate(names) if name not in own]
        assert (answers[:, unknown] == 0).all()
        assert (silo.own(silo.images.images).argmax(1) == silo.images.labels).mean() > 0.7, (
            "labels mean what answers do"
        )


def test_the_label_mix_is_guessed_of_a_silos_own_classes(audited):
    found = label_mixes(audited)
    assert [row["silo"] for row in found] == ["silo-0", "silo-1"]
    assert all(np.isfinite(row["correlation"]) for row in found)
    images, answers = audited.answered_by("silo-1")
    assert answers.shape == (len(images), 4)
