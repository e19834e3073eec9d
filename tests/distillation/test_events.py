# SPDX-License-Identifier: Apache-2.0
"""Event files of a run, read back as TensorBoard reads them."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from support.fakes import FakeSilo
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError

pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")


class Dies(Exception):
    pass


def config():
    return tiny_config(output__tensorboard=True)


def read_back(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard")).Reload()


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def silos(misbehave=lambda query, count: None):
    return [FakeSilo(f"silo-{i}", misbehave=misbehave) for i in range(2)]


def test_events_hold_the_figures_of_the_metrics_and_the_query_images(tmp_path):
    distill(config(), LocalTransport(silos()), tmp_path, evaluation=evaluation())
    events, lines = read_back(tmp_path), lines_of(tmp_path)
    for key in ("student_accuracy", "entropy", "waiting_s", "answers_used", "alarm"):
        told = [float(line[key]) for line in lines if key in line]
        assert [event.value for event in events.Scalars(f"run/{key}")] == pytest.approx(told)
    assert [event.step for event in events.Scalars("run/bank")] == list(range(1, len(lines) + 1))
    assert [event.value for event in events.Scalars("silos/answers_left/silo-1")] == [9970, 9940, 9910, 9880]
    pictures = events.Images("queries")
    assert [picture.step for picture in pictures] == [1, 2, 3, 4]
    asked = np.fromfile(tmp_path / "bank/images.u8", np.uint8).reshape(-1, 8, 8)
    shown = np.asarray(Image.open(io.BytesIO(pictures[0].encoded_image_string)).convert("L"))
    assert shown.shape == (27, 90)  # 30 images in rows of ten, a pixel between
    assert (shown[:8, :8] == asked[0]).all()
    assert (shown[9:17, 9:17] == asked[11]).all()


@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_resumed_run_leaves_each_step_once(tmp_path, at):
    seen = {"n": 0}

    def once(query, count):
        seen["n"] += 1
        if seen["n"] == at:
            raise Dies

    fakes = silos(once)
    with pytest.raises(Dies):
        distill(config(), LocalTransport(fakes), tmp_path)
    distill(config(), LocalTransport(fakes), tmp_path, resume=True)
    steps = [event.step for event in read_back(tmp_path).Scalars("run/bank")]
    assert steps == sorted(set(steps))
    assert steps[:4] == [1, 2, 3, 4]


def test_a_finished_run_resumed_replaces_the_steps_of_its_final_fit(tmp_path):
    for resume in (False, True):
        distill(config(), LocalTransport(silos()), tmp_path, resume=resume)
    steps = [event.step for event in read_back(tmp_path).Scalars("run/bank")]
    assert steps == sorted(set(steps))
    assert len(lines_of(tmp_path)) > len(steps)  # the metrics keep both attempts


def test_without_the_package_the_run_is_refused_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("fedcpsc.distillation.events.find_spec", lambda name: None)
    fakes = silos()
    with pytest.raises(ConfigError, match=r"tensorboard.*not installed.*fedcpsc\[tensorboard\]"):
        distill(config(), LocalTransport(fakes), tmp_path / "run")
    assert fakes[0].calls == 0
    assert not (tmp_path / "run").exists()


def test_a_run_that_writes_no_events_does_not_import_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    distill(tiny_config(), LocalTransport(silos()), tmp_path)
    assert not (tmp_path / "tensorboard").exists()
