# SPDX-License-Identifier: Apache-2.0
"""What is set for a GPU: the format of float32 factors, fused optimisers, and what is refused without one."""

import threading

import pytest
import torch
from support.tiny_runs import tiny_config
from support.tiny_white_box import tiny
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fedcpsc.distillation.optimisers import make_optimiser
from fedcpsc.errors import ConfigError
from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.fused import fused_on_gpu, load_optimiser
from fedcpsc.models.registry import build_classifier

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def settings():
    backends = torch.backends
    formats = backends.cudnn.conv.fp32_precision, backends.cudnn.rnn.fp32_precision, backends.cuda.matmul.fp32_precision
    return *formats, backends.cudnn.benchmark


def test_in_a_run_float32_is_float32_and_torchs_settings_are_given_back():
    before = settings()
    with gpu_arithmetic(GPU):
        assert settings() == ("ieee", "ieee", "ieee", True)
        with gpu_arithmetic(GPU, tf32=True):
            assert settings() == ("ieee", "ieee", "ieee", True), "the first holds"
        assert settings() == ("ieee", "ieee", "ieee", True)
    assert settings() == before
    with gpu_arithmetic(GPU, tf32=True):
        assert settings() == ("tf32", "tf32", "tf32", True)
    assert settings() == before
    with gpu_arithmetic(CPU):
        assert settings() == before


def test_of_runs_in_two_threads_the_last_to_end_gives_the_settings_back():
    before, entered, leave = settings(), threading.Event(), threading.Event()

    def other():
        with gpu_arithmetic(GPU):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with gpu_arithmetic(GPU):
        pass
    assert settings() == ("ieee", "ieee", "ieee", True), "the other still runs"
    leave.set()
    thread.join()
    assert settings() == before


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_on_a_gpu_the_optimiser_is_fused_and_elsewhere_torchs_choice(kind):
    student = tiny_config(student__optimiser=kind).student
    with FakeTensorMode(), GPU:
        assert make_optimiser(student, nn.Linear(3, 4)).param_groups[0]["fused"] is True
    assert make_optimiser(student, nn.Linear(3, 4)).param_groups[0]["fused"] is None
    assert fused_on_gpu([]) is None


def test_a_fused_step_reads_no_number_from_the_gpu_whatever_the_rate():
    with FakeTensorMode(), GPU:
        network = nn.Linear(3, 4)
        optimiser = make_optimiser(tiny_config().student, network)
        for rate in (0.1, 0.2):
            for weight in network.parameters():
                weight.grad = torch.ones_like(weight)
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()  # which would raise
    assert {str(state["step"].device) for state in optimiser.state.values()} == {"cuda:0"}


def test_an_optimisers_state_of_another_kind_of_device_does_not_bring_its_kernel():
    network = build_classifier("convnet", 3, (1, 8, 8), 4, seed=1)
    saved, own = torch.optim.Adam(network.parameters(), 0.1, fused=True), torch.optim.Adam(network.parameters(), 0.2)
    network(torch.rand(2, 1, 8, 8)).sum().backward()
    saved.step()
    load_optimiser(own, saved.state_dict())
    assert (own.param_groups[0]["fused"], own.param_groups[0]["lr"]) == (None, 0.1)
    assert len(own.state) == len(saved.state) > 0
    with pytest.raises(ValueError, match="is longer"):
        load_optimiser(own, {"state": {}, "param_groups": []})


def test_a_compiled_fit_is_for_one_process():
    with pytest.raises(ConfigError, match=r"runtime\.compile=True: is for one process, and runtime\.processes is 2"):
        tiny_config(runtime__compile=True, runtime__processes=2)


@pytest.mark.parametrize(("name", "value"), [("processes", 2), ("compile", True)])
def test_the_white_box_mode_refuses_what_it_would_ignore(name, value):
    with pytest.raises(ConfigError, match=rf"runtime\.{name}={value}: .*white-box mode"):
        tiny(runtime={name: value})
