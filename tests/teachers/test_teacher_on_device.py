# SPDX-License-Identifier: Apache-2.0
"""A silo's network on a device of its owner's choice."""

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_tensors
from support.own_models import Small, as_script
from support.pretended_gpu import PRETENDED, pretended_gpu
from support.silo_folder import SHAPE, make_folder

from fedcpsc.errors import ConfigError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.models.registry import build_classifier
from fedcpsc.teachers import on_device
from fedcpsc.teachers.manifest import load_manifest
from fedcpsc.teachers.opening import open_teacher

IMAGES = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    state = dict(build_classifier("convnet", 2, SHAPE, 4, seed=1).state_dict())
    make_folder(tmp_path / "silo", save_tensors(state), kind="torch", architecture="convnet", entry_point=None, width=4)
    return tmp_path / "silo"


def test_the_network_answers_where_the_policy_says_with_one_wait_a_pass(folder, monkeypatch):
    monkeypatch.setattr(on_device, "choose_device", lambda wanted, key: PRETENDED if wanted == "cuda" else None)
    with pretended_gpu() as waits:
        teacher = open_teacher(folder, load_manifest(folder), 3, "cuda")
        waits.forget()
        assert teacher.outputs(IMAGES).shape == (7, 2)
    assert waits.counts == {"download": 3}, waits.where
    assert {weight.device for weight in teacher._network._network.parameters()} == {PRETENDED}


def test_answers_that_went_over_a_device_are_the_same(folder, monkeypatch):
    usual = open_teacher(folder, load_manifest(folder)).predict(IMAGES)
    monkeypatch.setattr(on_device, "choose_device", lambda wanted, key: torch.device("cpu"))
    moved = open_teacher(folder, load_manifest(folder), device="cuda")
    np.testing.assert_allclose(moved.predict(IMAGES), usual, atol=1e-6)


def test_a_gpu_that_is_not_there_is_told_before_the_ledger_is_opened(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (folder / "ledger.sqlite").unlink()
    (folder / "policy.yaml").write_text("service: {device: cuda}\n")
    with pytest.raises(ConfigError, match=r"service\.device='cuda': no GPU is visible to torch"):
        open_gatekeeper(folder)
    assert not (folder / "ledger.sqlite").exists()
    assert Policy().service.device == "cpu"


def test_a_kind_that_answers_on_the_cpu_alone_is_refused(tmp_path):
    weights = as_script(Small(), tmp_path / "small.pt").read_bytes()
    make_folder(tmp_path / "silo", weights, kind="torchscript", architecture="torchscript", entry_point=None)
    with pytest.raises(ConfigError, match=r"service\.device='cuda': a teacher of kind torchscript answers on the CPU"):
        open_teacher(tmp_path / "silo", load_manifest(tmp_path / "silo"), device="cuda")
