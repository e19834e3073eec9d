# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the white-box claims: runs of a plan, what is measured of images, and the tables of its rows."""

import itertools
import json

import numpy as np
import pytest
import torch
from support.documented import ROOT

from benchmarks import white_box_claims
from benchmarks.image_diversity import diversity, within_class_distance
from benchmarks.tables import white_box
from benchmarks.white_box_claims import ALL_QUIRKS, ClaimsPlan, main, planned
from fedcpsc.data.images import ImageSet
from fedcpsc.models.registry import Classifier
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.typed_yaml import load_as
from fedcpsc.white_box.plan import WhiteBoxConfig
from fedcpsc.white_box.quirks import Quirks

TINY = {
    "data": {"source": "digits", "train_limit": 200, "test_limit": 60},
    "teacher.epochs": 1,
    "epochs": 3,
    "iterations": 1,
    "batch_size": 8,
    "generator.milestones": [2],
}
PLAN = {
    "config": str(ROOT / "configs/white_box_digits.yaml"),
    "seeds": [1, 2],
    "data": {"few digits": TINY},
    "settings": {"as published": {}, "no label": {"generator.condition": "none"}},
    "quirks": ["adam_anew"],
}


class Bright(Classifier):
    """Sees class 1 in an image that is bright on average, class 0 else; the two pixels are its features."""

    def forward_with_features(self, x):
        brightness = x.mean((1, 2, 3))
        return torch.stack([-brightness, brightness], 1), x.flatten(1)


def test_the_published_plan_is_valid_and_has_every_quirk_that_can_change_its_students():
    plan = load_as(ClaimsPlan, ROOT / "benchmarks/white_box_claims.yaml")
    runs = list(planned(plan))
    assert len({run.key for run in runs}) == len(runs) == 3 * 3 * (5 + 6 + 1)
    for run in runs:
        overrides = white_box_claims.overrides_of(run)
        assert load_as(WhiteBoxConfig, ROOT / plan.config, overrides).seed == run.seed
    # at their temperature the contrast's scale is 1, no image has 64 pixels, unused gradients are unused, and the best
    # epoch stands beside the last one's in every row
    without_effect = {"contrast_scaled", "small_form", "unused_gradients", "best_on_test"}
    assert set(plan.quirks) == set(Quirks.names()) - without_effect


def test_distance_within_a_class_is_the_mean_over_pairs():
    stream = torch.Generator().manual_seed(1)
    features = torch.nn.functional.normalize(torch.randn(9, 4, generator=stream), dim=1)
    classes = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2])  # one image alone has no pair
    each = []
    for k in (0, 1):
        pairs = itertools.combinations(features[classes == k].tolist(), 2)
        each.append(np.mean([1 - np.dot(a, b) for a, b in pairs]))
    assert within_class_distance(classes, features) == pytest.approx(np.mean(each), rel=1e-5)


def test_images_are_measured_by_the_classes_that_the_teacher_sees():
    teacher = Bright(2, (1, 1, 2))
    pixels = np.array([[255, 255], [255, 255], [0, 0], [0, 0]], np.uint8).reshape(4, 1, 1, 2)
    real = ImageSet(pixels, np.array([1, 1, 0, 0]), 2)

    def always_bright(z, y):
        return torch.ones(len(y), 1, 1, 2)

    def by_label(z, y):
        return torch.where(y == 1, 1.0, -1.0)[:, None, None, None] * (1.5 + z.clamp(-1, 1))[:, :, None, None]

    collapsed = diversity(teacher, always_bright, 2, real, 1, labelled=True, per_class=50)
    assert (collapsed["recall"], collapsed["least_recall"], collapsed["entropy"]) == (0.5, 0, 0)
    assert collapsed["distance"] == collapsed["real_distance"] == 0
    kept = diversity(teacher, lambda z, y: by_label(z, y).view(-1, 1, 1, 2), 2, real, 1, labelled=True, per_class=50)
    assert (kept["recall"], kept["least_recall"], kept["entropy"]) == (1, 1, 1)
    assert kept["distance"] > 0.01
    assert diversity(teacher, always_bright, 2, real, 1, labelled=False, per_class=50)["recall"] is None


def test_runs_are_made_once_each_row_is_written_at_once_and_tables_are_made_of_them(tmp_path, monkeypatch):
    plan, out = tmp_path / "plan.yaml", tmp_path / "rows.json"
    plan.write_text(dump_plain(PLAN))
    measured, measure = [], white_box_claims.measure

    def interrupted(made, run, runs):
        rows = json.loads(out.read_text()) if out.exists() else []
        measured.append((run.key, len(rows)))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(made, run, runs)

    monkeypatch.setattr(white_box_claims, "measure", interrupted)
    arguments = ["claims", str(plan), "--out", str(out), "--runs", str(tmp_path / "runs"), "--seeds", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(KeyboardInterrupt):
        main()
    assert main() == 0
    assert [rows for _, rows in measured] == [0, 1, 2, 2, 3]  # one by one, and none of them twice
    rows = json.loads(out.read_text())
    assert [row["setting"] for row in rows] == ["as published", "no label", "adam_anew", ALL_QUIRKS]
    assert [row["recall"] is None for row in rows] == [False, True, False, False]
    assert rows[-1]["quirks"] == list(Quirks.names())
    assert rows[-1]["best_epoch"] >= rows[-1]["student"]
    rows += [row | {"seed": 2, "student": row["student"] + 2} for row in rows]
    monkeypatch.setattr(white_box, "read", lambda name: rows)
    claims, quirks = white_box.claims(), white_box.quirks()
    assert [line.split(" | ")[1] for line in claims[2:]] == ["as published", "no label"]
    assert claims[2].split(" | ")[3] == f"{rows[0]['student'] + 1:.1f} +- 1.4"
    by = rows[1]["student"] - rows[0]["student"]
    assert claims[3].split(" | ")[4] == f"{by:+.1f} +- 0.0"
    assert [line.split(" | ")[0].strip("| ") for line in quirks[2:]] == ["none", "adam anew", "all quirks"]


def test_where_nothing_was_measured_the_page_says_so(monkeypatch):
    monkeypatch.setattr(white_box, "read", lambda name: None)
    assert white_box.claims() == white_box.quirks() == ["Not measured yet: the page names the command."]
