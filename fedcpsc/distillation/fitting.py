# SPDX-License-Identifier: Apache-2.0
"""Who fits the student to the bank: this process alone, or several that share every batch (`runtime.processes`).

With several, this process is rank 0 and the only one that knows of silos, rounds and answers. The others wait at a
pipe for a job, which is a call of `steps.fit`: they map the bank's images and targets, and do the same steps on their
parts of the batches. At a network's first job they take its weights from rank 0 and its optimiser's state from the job;
from then on every process keeps both, which the same gradients change alike. A job says only what is new. The others
end when the pipe does, however this process ended.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
from fedcpsc.distillation.bank_reader import BankReader
from fedcpsc.distillation.data_parallel import Networks, Rank
from fedcpsc.distillation.fit_worker import FitSetting, meet, work_for
from fedcpsc.distillation.steps import Member, fit
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.models.registry import Classifier
from fedcpsc.runs.answer_bank import AnswerBank

__all__ = ["Fit", "fitting"]

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
        yield partial(fit, networks=Networks(compiled=config.runtime.compile))
        return
    if device.type == "cuda" and torch.cuda.device_count() < processes:
        constraint = f"each takes a GPU, and torch sees {torch.cuda.device_count()}"
        raise ConfigError(explain("runtime.processes", processes, constraint, "lower it"))
    with tempfile.TemporaryDirectory(prefix="fedcpsc-fit-") as folder:
        together = _Processes(
            FitSetting(config, bank.folder, bank.image_shape, bank.classes, device.type, Path(folder) / "meet"), bank
        )
        try:
            together.start()
            yield together.fit
        finally:
            together.close()


class _Processes:
    """Rank 0's side."""

    def __init__(self, setting: FitSetting, bank: AnswerBank) -> None:
        self._setting = setting
        self._bank = bank
        self._processes = setting.config.runtime.processes
        self._networks = Networks(Rank(0, self._processes))
        self._pipes: list[Connection] = []
        self._others: list[Any] = []
        self._members: list[Member] = []  # in the order of their first jobs, which is their name to the others
        self._rows: dict[str, npt.NDArray[np.int64]] = {}  # as the others have them
        self._moment = 0

    def start(self) -> None:
        context, threads = mp.get_context("spawn"), torch.get_num_threads()
        for rank in range(1, self._processes):
            theirs, ours = context.Pipe(duplex=False)
            process = context.Process(target=work_for, args=(rank, threads, self._setting, theirs), daemon=True)
            process.start()
            theirs.close()
            self._others.append(process)
            self._pipes.append(ours)
        with self._explain_lost_process():
            meet(0, self._setting)

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
        torch.save(
            {
                **self._new_of_member(member),
                **self._new_rows(pool=pool, fresh=fresh),
                **self._new_of_bank(reader.rows),
                "call": {"steps": steps, "seed": seed, "fresh_share": fresh_share, "cosine_from": cosine_from},
            },
            job,
        )
        with self._explain_lost_process():
            for pipe in self._pipes:
                pipe.send_bytes(job.getbuffer())
            return fit(
                member, config, reader, pool, fresh, steps, seed,
                fresh_share=fresh_share, cosine_from=cosine_from, average=average, networks=self._networks,
            )  # fmt: skip

    def _new_of_member(self, member: Member) -> dict[str, Any]:
        """Which network it is about; at its first job also what the others need to make it and its optimiser."""
        for number, known in enumerate(self._members):
            if known is member:
                return {"member": number}
        self._members.append(member)
        made = {"index": member.index, "optimiser": member.optimiser.state_dict()}
        return {"member": len(self._members) - 1, "made": made}

    def _new_rows(self, **rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Those that are not the same arrays as before."""
        new = {name: array for name, array in rows.items() if self._rows.get(name) is not array}
        self._rows |= new
        return {"rows": {name: torch.from_numpy(array) for name, array in new.items()}}

    def _new_of_bank(self, count: int) -> dict[str, Any]:
        """Number of its rows, and which targets were set since the last job."""
        changed, self._moment = self._bank.targets_set_since(self._moment)
        return {"bank": {"rows": count, "changed": [(part.start, part.stop) for part in changed]}}

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
