# SPDX-License-Identifier: Apache-2.0
"""Silos that are made from folders of pictures tell the names of their classes, and one run teaches them all."""

import json

import numpy as np
import pytest
from PIL import Image

from fedcpsc.config import RunConfig
from fedcpsc.errors import FederationError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.protocol.messages import DescribeRequest
from fedcpsc.silos.make import make_silos
from fedcpsc.simulated.one_process import run_local
from fedcpsc.teachers.manifest import load_manifest
from fedcpsc.typed_yaml import validate

LEVELS = {"ant": 20, "bee": 110, "cat": 200}


def pictures(folder, names):
    """A folder of pictures for each name; how bright they are says which."""
    rng = np.random.default_rng(1)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(6):
            level = LEVELS.get(name, int(name) * 20 if name.isdigit() else 90)
            pixels = np.clip(rng.normal(level, 6, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def config(data, count=2, **changes):
    tree = {
        "data": {"source": "folder", "path": str(data), "channels": 1},
        "silos": {"count": count, "partition": {"kind": "own_files"}, "policy": {"answers": 1000}},
        "teachers": {"epochs": 3, "width": 4},
        "queries": {"answers_per_silo": 40, "rounds": 2},
        "synthesis": {"prior_share": 1.0},
        "student": {"width": 4, "committee": 1, "steps_per_round": 2, "final_steps": 4},
        "aggregation": {"rule": "answer_peak_log"},
        "evaluation": {"held_out": False},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        tree[section][name] = value
    return validate(RunConfig, tree, "test")


def described(folder):
    gatekeeper = open_gatekeeper(folder)
    found = gatekeeper.describe(DescribeRequest())
    gatekeeper.close()
    return found


def test_silos_made_apart_with_other_folders_are_united_by_name(tmp_path):
    pictures(tmp_path / "data/0/train", ["ant", "bee"])
    pictures(tmp_path / "data/1/train", ["bee", "cat"])
    settings = config(tmp_path / "data")
    for silo in (0, 1):  # as two owners do, each on a machine of its own
        make_silos(settings, tmp_path / "silos", only=silo)
    assert [load_manifest(tmp_path / "silos" / n).class_names for n in "01"] == [("ant", "bee"), ("bee", "cat")]
    assert described(tmp_path / "silos/1").class_names == ("bee", "cat")
    result = run_local(settings, tmp_path / "run", tmp_path / "silos", resume=False, on_line=lambda line: None)
    assert (result["classes"], result["class_names"]) == (3, ["ant", "bee", "cat"])
    assert [silo["class_names"] for silo in result["silos"]] == [["ant", "bee"], ["bee", "cat"]]


def test_folders_with_numbers_for_names_keep_them(tmp_path):
    pictures(tmp_path / "data/train", [str(k) for k in range(11)])
    settings = config(tmp_path / "data", count=1, silos__partition={"kind": "iid"})
    make_silos(settings, tmp_path / "silos")
    names = load_manifest(tmp_path / "silos/0").class_names
    assert names is not None
    assert sorted(names, key=int) == [str(k) for k in range(11)]
    result = run_local(settings, tmp_path / "run", tmp_path / "silos", resume=False, on_line=lambda line: None)
    assert tuple(result["class_names"]) == names, "which logit is folder 10 stands in the result"
    details = json.loads((tmp_path / "run/details.json").read_text())
    assert tuple(details["class_names"]) == names


def test_a_made_silo_whose_classes_do_not_fit_is_refused_before_its_training(tmp_path):
    pictures(tmp_path / "data/0/train", ["ant", "bee"])
    pictures(tmp_path / "data/1/train", ["Ant", "cat"])
    settings = config(tmp_path / "data", silos__label_sets="own")
    with pytest.raises(FederationError, match=r"'Ant'.*case or space alone"):
        make_silos(settings, tmp_path / "silos")
    assert not (tmp_path / "silos/1/teacher.safetensors").exists()
    joined = config(tmp_path / "data", silos__label_sets="own", aggregation__aliases={"Ant": "ant"})
    assert len(make_silos(joined, tmp_path / "silos")) == 2


def test_a_folder_that_was_renamed_names_the_class_anew_without_a_training(tmp_path):
    pictures(tmp_path / "data/0/train", ["ant", "bee"])
    settings = config(tmp_path / "data", count=1)
    make_silos(settings, tmp_path / "silos")
    (tmp_path / "data/0/train/ant").rename(tmp_path / "data/0/train/antelope")
    (report,) = make_silos(settings, tmp_path / "silos")
    assert report.reused
    assert described(tmp_path / "silos/0").class_names == ("antelope", "bee")
