# SPDX-License-Identifier: Apache-2.0
"""Who fits the student to the bank: this process alone, or several that share every batch (`runtime.processes`).

With several, this process is rank 0 and the only one that knows of silos, rounds and answers. The others wait at a
pipe for a job, which is a call of `steps.fit`: they map the bank's images and targets, take the network's weights from
rank 0 and the optimiser's state from the job, do the same steps on their parts of the batches, and forget the outcome.
They end when the pipe does, however this process ended.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from fedcpsc.config import RunConfig, StudentConfig
from fedcpsc.distillation.data_parallel import Rank
from fedcpsc.distillation.steps import BankReader, Member, fit, make_committee
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.models.registry import Classifier
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_view import map_rows

__all__ = ["Fit", "fitting"]

_PATIENCE = timedelta(minutes=10)  # with a process that does not come to a meeting
_END_S = 10.0  # for a process to end by itself


class Fit(Protocol):
    """`steps.fit`, or what does the same with more processes."""

    def __call__(
        self,
        member: Member,
        config: StudentConfig,
        reader: BankReader,
        pool: npt.NDArray[np.int64],
        fresh: npt.NDArray[np.int64],
        steps: int,
        seed: int,
        *,
        fresh_share: float = 0.0,
        cosine_from: tuple[int, int] | None = None,
        average: Classifier | None = None,
    ) -> Tensor:
        """As `steps.fit`."""
        ...


@contextmanager
def fitting(config: RunConfig, bank: AnswerBank, device: torch.device) -> Iterator[Fit]:
    """The run's fit; the processes it needs live as long as the context.

    Args:
        config: configuration of the run.
        bank: answer bank that is fitted to.
        device: device of rank 0. On a CPU every process has as many threads as this one; of GPUs each has one.

    Raises:
        ConfigError: more processes than GPUs.
        RunError: a process did not start.
    """
    processes = config.runtime.processes
    if processes == 1:
        yield fit
        return
    if device.type == "cuda" and torch.cuda.device_count() < processes:
        constraint = f"each takes a GPU, and torch sees {torch.cuda.device_count()}"
        raise ConfigError(explain("runtime.processes", processes, constraint, "lower it"))
    with tempfile.TemporaryDirectory(prefix="fedcpsc-fit-") as folder:
        together = _Processes(
            _Setting(config, bank.folder, bank.image_shape, bank.classes, device.type, Path(folder) / "meet")
        )
        try:
            together.start()
            yield together.fit
        finally:
            together.close()


@dataclass(frozen=True)
class _Setting:
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


class _Processes:
    """Rank 0's side."""

    def __init__(self, setting: _Setting) -> None:
        self._setting = setting
        self._processes = setting.config.runtime.processes
        self._pipes: list[Connection] = []
        self._others: list[Any] = []

    def start(self) -> None:
        context, threads = mp.get_context("spawn"), torch.get_num_threads()
        for rank in range(1, self._processes):
            theirs, ours = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(rank, threads, self._setting, theirs), daemon=True)
            process.start()
            theirs.close()
            self._others.append(process)
            self._pipes.append(ours)
        with self._explain_lost_process():
            _meet(0, self._setting)

    def fit(
        self,
        member: Member,
        config: StudentConfig,
        reader: BankReader,
        pool: npt.NDArray[np.int64],
        fresh: npt.NDArray[np.int64],
        steps: int,
        seed: int,
        *,
        fresh_share: float = 0.0,
        cosine_from: tuple[int, int] | None = None,
        average: Classifier | None = None,
    ) -> Tensor:
        job = io.BytesIO()
        state = {"optimiser": member.optimiser.state_dict(), "rows": reader.rows, "steps": steps, "seed": seed}
        state |= {"pool": torch.from_numpy(pool), "fresh": torch.from_numpy(fresh)}
        torch.save({**state, "fresh_share": fresh_share, "cosine_from": cosine_from}, job)
        rank = Rank(0, self._processes)
        with self._explain_lost_process():
            for pipe in self._pipes:
                pipe.send_bytes(job.getbuffer())
            return fit(
                member, config, reader, pool, fresh, steps, seed,
                fresh_share=fresh_share, cosine_from=cosine_from, average=average, rank=rank,
            )  # fmt: skip

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self._others:
            process.join(_END_S)
            if process.is_alive():  # in a meeting to which this process will not come
                process.kill()
                process.join()

    @contextmanager
    def _explain_lost_process(self) -> Iterator[None]:
        """Says what it means that a process is missing at a meeting."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            for process in self._others:
                process.join(1.0)  # its connections break a little before it is gone
            gone = [f"{process.name}: {process.exitcode}" for process in self._others if not process.is_alive()]
            if not gone:
                raise
            remedy = "read its error in the log; resume the run, with fewer processes where memory was short"
            constraint = f"a process of the fit has ended ({', '.join(gone)})"
            raise RunError(explain("runtime.processes", self._processes, constraint, remedy)) from error


class _Rows:
    """The bank's images and targets, as many as there were when the job was given."""

    def __init__(self, setting: _Setting) -> None:
        self._setting = setting
        self.rows = 0
        self.see(0)

    def see(self, rows: int) -> None:
        setting = self._setting
        if rows != self.rows or rows == 0:
            self.images, self.targets = map_rows(setting.bank, rows, setting.image_shape, setting.classes)
        self.rows = rows


def _work(rank: int, threads: int, setting: _Setting, jobs: Connection) -> None:
    """Another process's side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is rank 0's to handle; this process ends with the pipe
    torch.set_num_threads(threads)
    device = torch.device("cuda", rank) if setting.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    student, rows = setting.config.student, _Rows(setting)
    reader = BankReader(rows, device)
    alone = student.model_copy(update={"committee": 1})
    (member,) = make_committee(alone, setting.classes, setting.image_shape, setting.config.seed, device)
    _meet(rank, setting)
    while True:
        try:
            job = torch.load(io.BytesIO(jobs.recv_bytes()), map_location=device, weights_only=True)
        except EOFError:
            return
        member.optimiser.load_state_dict(job["optimiser"])
        rows.see(job["rows"])
        reader.refresh()
        pool, fresh = job["pool"].cpu().numpy(), job["fresh"].cpu().numpy()
        own = Rank(rank, setting.config.runtime.processes)
        options = {name: job[name] for name in ("fresh_share", "cosine_from")}
        fit(member, student, reader, pool, fresh, job["steps"], job["seed"], **options, rank=own)


def _meet(rank: int, setting: _Setting) -> None:
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
