# SPDX-License-Identifier: Apache-2.0
"""Two processes that share every batch fit the student as one does."""

import copy
import multiprocessing.connection
import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.fakes import FakeSilo
from support.tiny_runs import brightness_bank, tiny_config
from torch import nn

from fedcpsc.distillation import data_parallel
from fedcpsc.distillation.data_parallel import Networks
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.steps import BankReader, fit, make_committee
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, RunError

CPU = torch.device("cpu")
STEPS = 12


def config(processes=1, **student):
    """In float32, whatever the machine: what is compared differs by its rounding alone."""
    named = {f"student__{name}": value for name, value in ({"precision": "float32"} | student).items()}
    return tiny_config(runtime__processes=processes, **named)


@pytest.fixture
def bank(tmp_path):
    return brightness_bank(tmp_path)


def curve(settings, bank, how):
    """The losses of two calls, of which the second goes on where the first ended; and what was learnt."""
    (member, *_) = make_committee(settings.student, 3, (1, 8, 8), 1, CPU)
    average = copy.deepcopy(member.network)
    reader, fresh = BankReader(bank, CPU), np.arange(80, 160)
    first = how(member, settings.student, reader, np.arange(80), np.zeros(0, np.int64), STEPS, 5)
    options = {"fresh_share": 0.3, "cosine_from": (0, 2 * STEPS), "average": average}
    second = how(member, settings.student, reader, np.arange(80), fresh, STEPS, 6, **options)
    return torch.cat([first, second]), member.network.state_dict(), average.state_dict()


def test_two_processes_give_the_loss_curve_of_one(bank):
    """With all that looks across a batch: batch norm, contrast; and with what only rank 0 has: the average."""
    student = {"contrastive_weight": 0.5, "average": 0.9}
    alone, weights, mean = curve(config(**student), bank, fit)
    with fitting(config(2, **student), bank, CPU) as shared:
        together, weights_again, mean_again = curve(config(2, **student), bank, shared)
    assert (alone[-4:].mean() < alone[:4].mean() - 0.05).item(), "nothing was learnt, so nothing was compared"
    assert (alone - together).abs().max().item() < 1e-5
    for one, other in ((weights, weights_again), (mean, mean_again)):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, atol=2e-4, rtol=0, msg=name)


def test_in_bfloat16_two_processes_fit_as_one_but_for_rounding(bank):
    settings = {"precision": "bfloat16", "contrastive_weight": 0.5}
    exact, *_ = curve(config(contrastive_weight=0.5), bank, fit)
    alone, *_ = curve(config(**settings), bank, fit)
    with fitting(config(2, **settings), bank, CPU) as shared:
        together, *_ = curve(config(2, **settings), bank, shared)
    assert alone.dtype == torch.float32
    assert 1e-6 < (alone - exact).abs().max().item() < 0.05, "rounded, and no more than that"
    assert (alone - together).abs().max().item() < 0.05


def test_without_the_whole_batchs_statistics_the_curves_would_part(bank, monkeypatch):
    """The check above sees batch norm: with every process's own statistics it fails, and plainly."""
    settings = config(batch_size=8)
    alone, *_ = curve(settings, bank, fit)
    halves = nn.BatchNorm2d.forward

    def by_halves(norm, x):
        return torch.cat([halves(norm, part) for part in x.chunk(2)])

    monkeypatch.setattr(nn.BatchNorm2d, "forward", by_halves)
    apart, *_ = curve(settings, bank, fit)
    assert (alone - apart).abs().max().item() > 1e-3


def test_a_compiled_fit_is_the_fit_and_compiles_a_network_once(bank):
    """With a backend that runs what was traced as it is."""
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph

    plain, _, mean = curve(config(average=0.9), bank, fit)
    networks = Networks(compiled=True, backend=backend)
    compiled, _, mean_again = curve(config(average=0.9), bank, partial(fit, networks=networks))
    assert len(traced) == 1
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(mean_again, mean, atol=1e-4, rtol=0)


def test_a_whole_run_with_two_processes_ends_as_with_one(tmp_path):
    students = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        distill(
            config(processes, architecture="convnet_gn"),
            LocalTransport([FakeSilo("silo-0"), FakeSilo("silo-1")]),
            folder,
        )
        students.append(load_file(folder / "student.safetensors"))
        assert not torch.distributed.is_initialized()
    for name, value in students[0].items():
        torch.testing.assert_close(students[1][name], value, atol=1e-3, rtol=0, msg=name)


def test_a_process_that_ends_is_told(bank):
    settings = config(2)

    def killed_in_between():
        with fitting(settings, bank, CPU) as shared:
            (other,) = multiprocessing.active_children()
            os.kill(other.pid, signal.SIGKILL)
            curve(settings, bank, shared)

    with pytest.raises(RunError, match=r"runtime\.processes=2.*has ended.*resume"):
        killed_in_between()
    assert not torch.distributed.is_initialized()
    assert not multiprocessing.active_children()


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ConfigError, match=r"runtime\.processes=3.*must divide student\.batch_size=16"):
        config(3)


def test_more_processes_than_gpus_are_refused(bank):
    with (
        pytest.raises(ConfigError, match=r"runtime\.processes=2.*torch sees"),
        fitting(config(2), bank, torch.device("cuda")),
    ):
        pass


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Settings, a bank and the fit of two processes that go on from test to test, as they do over a run.

    A process is in one group at a time: tests that make one of their own stand before those that use this.
    """
    settings = config(2, fellows="convnet_gn")
    bank = brightness_bank(tmp_path_factory.mktemp("two"))
    with fitting(settings, bank, CPU) as shared:
        yield settings, bank, shared


def pairs(settings):
    """The committee twice: for one process, and for two."""
    return [make_committee(settings.student, 3, (1, 8, 8), 1, CPU) for _ in range(2)]


def test_what_processes_share_is_made_once_and_a_job_says_only_what_is_new(two, monkeypatch):
    """Neither is a network wrapped anew for every few steps, nor its optimiser's state sent again."""
    settings, bank, shared = two
    made, sent = [], []
    wrap, send = data_parallel.DistributedDataParallel, multiprocessing.connection.Connection.send_bytes
    monkeypatch.setattr(data_parallel, "DistributedDataParallel", lambda views: made.append(views) or wrap(views))
    monkeypatch.setattr(
        multiprocessing.connection.Connection, "send_bytes", lambda pipe, job: sent.append(len(job)) or send(pipe, job)
    )
    pool, fresh, losses = np.arange(80), np.arange(80, 160), [[], []]
    alone, together = pairs(settings)
    for call in range(4):
        member = call % 2  # by turns, as in a round
        for how, members, found in ((fit, alone, losses[0]), (shared, together, losses[1])):
            reader = BankReader(bank, CPU)
            found.append(how(members[member], settings.student, reader, pool, fresh, 5, call, fresh_share=0.3))
    assert len(made) == len(together) == 2
    moments = 2 * 4 * sum(weight.numel() for weight in together[0].network.parameters())
    assert max(sent[2:]) < min(sent[:2]) < moments, "bytes of a job; of Adam's state in float32"
    assert (torch.cat(losses[0]) - torch.cat(losses[1])).abs().max().item() < 1e-5


def test_targets_that_were_set_between_two_jobs_reach_every_process(two):
    settings, bank, shared = two
    alone, together = (members[0] for members in pairs(settings))
    reader, pool, none, found = BankReader(bank, CPU), np.arange(160), np.zeros(0, np.int64), []
    for number in range(2):
        for how, member in ((fit, alone), (shared, together)):
            found.append(how(member, settings.student, reader, pool, none, 5, number))
        bank.set_targets(bank.batches[0], np.full((80, 3), 1 / 3, np.float32))
    assert (found[2] - found[3]).abs().max().item() < 1e-5


def test_a_fellow_of_another_architecture_is_shared_too(two):
    settings, bank, shared = two
    alone, together = (members[1] for members in pairs(settings))
    student = pairs(settings)[0][0].network
    assert list(alone.network.state_dict()) != list(student.state_dict())
    given = (settings.student, BankReader(bank, CPU), np.arange(80), np.zeros(0, np.int64), 5, 1)
    assert (shared(together, *given) - fit(alone, *given)).abs().max().item() < 1e-5
