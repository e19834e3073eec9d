# SPDX-License-Identifier: Apache-2.0
"""A process that shares the batches of a run's fit with rank 0 and others: what it does from its start to its end."""

from __future__ import annotations

import io
import os
import signal
import socket
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from fedcpsc.config import RunConfig
from fedcpsc.distillation.bank_reader import BankReader
from fedcpsc.distillation.data_parallel import Networks, Rank
from fedcpsc.distillation.steps import Member, fit, make_member
from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.fused import load_optimiser
from fedcpsc.runs.bank_view import map_rows

__all__ = ["FitSetting", "meet", "work_for"]

_PATIENCE = timedelta(minutes=10)  # with a process that does not come to a meeting


@dataclass(frozen=True)
class FitSetting:
    """What a process needs at its start.

    Attributes:
        config: configuration of the run.
        bank: folder of the answer bank.
        image_shape: (C, H, W) of the bank's images.
        classes: number of classes.
        device: kind of device, `cpu` or `cuda`.
        meeting: path of a file that does not exist yet, through which the processes find each other.
    """

    config: RunConfig
    bank: Path
    image_shape: tuple[int, int, int]
    classes: int
    device: str
    meeting: Path


class _Rows:
    """The bank's images and targets, as many as there were when the job was given."""

    def __init__(self, setting: FitSetting) -> None:
        self._setting = setting
        self._changed: list[slice] = []
        self._jobs = 0
        self.rows = 0
        self.see(0, [])

    def see(self, rows: int, changed: list[tuple[int, int]]) -> None:
        setting = self._setting
        if rows != self.rows or rows == 0:
            self.images, self.targets = map_rows(setting.bank, rows, setting.image_shape, setting.classes)
        self.rows, self._jobs = rows, self._jobs + 1
        self._changed = [slice(*part) for part in changed]

    def targets_set_since(self, moment: int) -> tuple[list[slice], int]:
        return (self._changed if self._jobs > moment else []), self._jobs


def work_for(rank: int, threads: int, setting: FitSetting, jobs: Connection) -> None:
    """Does rank 0's jobs until its pipe ends.

    Args:
        rank: number of this process, >= 1; of GPUs it has that one.
        threads: number of torch threads.
        setting: what rank 0 knows at the start.
        jobs: pipe that the jobs come through.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is rank 0's to handle; this process ends with the pipe
    torch.set_num_threads(threads)
    device = torch.device("cuda", rank) if setting.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with gpu_arithmetic(device, tf32=setting.config.runtime.tf32):
        _do_jobs(rank, device, setting, jobs)


def _do_jobs(rank: int, device: torch.device, setting: FitSetting, jobs: Connection) -> None:
    """Fits as rank 0 says, until it says no more."""
    student, rows = setting.config.student, _Rows(setting)
    reader, networks = BankReader(rows, device), Networks(Rank(rank, setting.config.runtime.processes))
    members: dict[int, Member] = {}
    own: dict[str, npt.NDArray[np.int64]] = {}
    meet(rank, setting)
    while True:
        try:
            job = torch.load(io.BytesIO(jobs.recv_bytes()), map_location="cpu", weights_only=True)
        except EOFError:
            return
        if "made" in job:
            made = make_member(
                student, setting.classes, setting.image_shape, setting.config.seed, device, None, job["made"]["index"]
            )
            load_optimiser(made.optimiser, job["made"]["optimiser"])
            members[job["member"]] = made
        own |= {name: array.numpy() for name, array in job["rows"].items()}
        rows.see(**job["bank"])
        reader.refresh()
        fit(members[job["member"]], student, reader, own["pool"], own["fresh"], **job["call"], networks=networks)


def meet(rank: int, setting: FitSetting) -> None:
    """Joins torch's default process group: NCCL between GPUs, else gloo, and on this machine's loopback alone."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}  # their ports know no login
    dist.init_process_group(
        "nccl" if setting.device == "cuda" else "gloo",
        init_method=f"file://{setting.meeting}",
        rank=rank,
        world_size=setting.config.runtime.processes,
        timeout=_PATIENCE,
    )
