# SPDX-License-Identifier: Apache-2.0
"""The measured process: a script, run with the measured source tree on PYTHONPATH.

It imports of `fedcpsc` only what it measures, never this package: so the same measuring code runs over another
revision's networks, losses and steps. Jobs come as JSON lines on stdin, replies go as JSON lines to stdout.

    {"do": "student", ...} -> {"ready"}, to each {"go": true} {"wall_s", "cpu_s"}, at the end of stdin {"peak_MiB"};
                              where there are bare passes to hold it against also {"bare_wall_s", "bare_cpu_s"}
    {"do": "curve", ...}   -> {"final", "split"}; the run's own file of progress lines holds the points
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import itertools
import json
import math
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor, nn

import fedcpsc
from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.images import to_uint8
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.selection import select
from fedcpsc.distillation.steps import BankReader, Member, fit, make_committee
from fedcpsc.distillation.synthesis import synthesise, train_generator
from fedcpsc.models.device import choose_device
from fedcpsc.models.registry import build_classifier
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.protocol import codec, messages

_MOST_ROWS = 5000  # of the bank that is fitted to; a step's time does not depend on it
_HELD_OUT = 1000


@dataclass(frozen=True)
class Work:
    """What one timed call does.

    Attributes:
        call: function that does the work; returns the tensors that came out.
        units: number of steps or rounds in one call.
        images: number of images that passed through it.
        bare: function that passes as many images through the same networks, forward and, where the work trains,
            backward, and does nothing else: the time that the work cannot fall below; None where it has no such bound.
    """

    call: Callable[[], Iterable[Tensor]]
    units: int
    images: int
    bare: Callable[[], None] | None = None


def _settled(config: RunConfig, device: torch.device) -> RunConfig:
    """The configuration with the number formats that a run on this device begins with."""
    if None not in (config.student.precision, config.synthesis.precision):
        return config  # as in commits that left nothing to the device, and lack the function
    from fedcpsc.models.precision import with_settled_precision  # noqa: PLC0415

    return with_settled_precision(config, device, before=None, own_student=False)


class Bench:
    """A run's committee in front of a bank of prior images with made-up answers."""

    def __init__(self, config: RunConfig, classes: int, shape: tuple[int, int, int], steps: int, scratch: Path) -> None:
        self.device = choose_device(config.runtime.device)
        config = _settled(config, self.device)
        self.config, self.classes, self.shape, self.steps = config, classes, shape, steps
        self.count = max(1, config.queries.answers_per_silo // config.queries.rounds)
        self.members = make_committee(config.student, classes, shape, config.seed, self.device)
        self.networks = [member.network for member in self.members]
        self.scratch = scratch

    def prior(self) -> Work:
        """Procedural images of one round, as 8-bit images."""
        synthesis = self.config.synthesis
        count = max(1, round(synthesis.prior_share * self.count)) * synthesis.candidates
        return Work(lambda: [self._prior_images(count)], 1, count)

    def generator(self) -> Work:
        """Steps of a fresh generator against the committee."""
        synthesis = self.config.synthesis.model_copy(update={"steps": self.steps})

        def call() -> Iterable[Tensor]:
            made = train_generator(synthesis, self.networks, self.classes, self.shape, self.config.seed, self.device)
            return made.state_dict().values()

        return Work(call, self.steps, self.steps * synthesis.batch_size, self._bare_generator())

    def selection(self) -> Work:
        """Choosing one round's images among its candidates."""
        pool = self._prior_images(self.count * self.config.synthesis.candidates)
        known = "precision" in inspect.signature(select).parameters  # older commits have none
        options: dict[str, Any] = {"precision": self.config.synthesis.precision} if known else {}
        bare = self._bare_passes(self.networks, len(pool), self.config.synthesis.precision)
        return Work(lambda: [select(pool, self.networks, self.count, self.device, **options)], 1, len(pool), bare)

    def student(self) -> Work:
        """Steps of the student on the bank, as in a round."""
        return self._fitting(self.members[:1], final=False)

    def committee(self) -> Work:
        """As many steps of every network of the committee."""
        return self._fitting(self.members, final=False)

    def final(self) -> Work:
        """Steps of the final fit: falling rate, averaged weights where configured."""
        return self._fitting(self.members[:1], final=True)

    def evaluation(self) -> Work:
        """The student's classes of held-out images; their pixels are the prior's, which changes nothing."""
        images, student = self._prior_images(_HELD_OUT).numpy(), self.networks[0]
        size = self.config.evaluation.batch_size
        call = lambda: [torch.from_numpy(predict(student, images, size))]  # noqa: E731
        return Work(call, 1, len(images), self._bare_passes([student], len(images)))

    def answers(self) -> Work:
        """A silo's answers to one round's images: query and answer as bytes, the ledger written, the teacher asked."""
        gatekeeper, network = open_silo(self.config, self.classes, self.shape, self.scratch)
        images, numbers = self._prior_images(self.count).numpy(), itertools.count()

        def call() -> Iterable[Tensor]:
            query = messages.Query(f"{next(numbers):032x}", messages.AnswerForm.PROBABILITIES, images)
            answer = gatekeeper.answer(codec.from_bytes(codec.to_bytes(query)))
            codec.to_bytes(answer)
            return [torch.from_numpy(answer.values)]

        return Work(call, 1, self.count, self._bare_passes([network], self.count, device=torch.device("cpu")))

    def round(self) -> Work:
        """One whole round without its answers: synthesise, then fit the committee."""
        reader, pool = self._bank()
        queries = self.config.queries

        def call() -> Iterable[Tensor]:
            images = synthesise(
                self.config.synthesis,
                self.networks,
                self.count,
                round_index=queries.rounds - 1,
                rounds=queries.rounds,
                classes=self.classes,
                image_shape=self.shape,
                seed=self.config.seed,
                device=self.device,
                **self._tones_of_synthesis(),
            )[0]  # older commits give a plain tuple
            for index, member in enumerate(self.members):
                share = self.config.student.fresh_share if index == 0 else 0.0
                steps = (
                    self.config.student.steps_per_round or self.config.steps_per_round
                )  # the second once had no name
                self._fit(member, reader, pool, steps, fresh_share=share)
            return [torch.from_numpy(images), *_weights(self.members)]

        return Work(call, 1, self.count)

    def _fitting(self, members: Sequence[Member], *, final: bool) -> Work:
        plan = self.config.student
        reader, pool = self._bank()
        average = copy.deepcopy(members[0].network) if final and plan.average > 0 else None

        def call() -> Iterable[Tensor]:
            for member in members:
                if final:
                    self._fit(member, reader, pool, self.steps, cosine_from=(0, 100 * self.steps), average=average)
                else:
                    share = plan.fresh_share if member is self.members[0] else 0.0
                    self._fit(member, reader, pool, self.steps, fresh_share=share)
            return _weights(members)

        bare = self._bare_steps([member.network for member in members])
        return Work(call, self.steps, self.steps * plan.batch_size * len(members), bare)

    def _bare_steps(self, networks: Sequence[nn.Module]) -> Callable[[], None]:
        """Forward and backward passes of as many batches, without data, loss and optimiser."""
        plan = self.config.student
        pixels = torch.rand(plan.batch_size, *self.shape, device=self.device)
        passes = self.steps * (2 if plan.contrastive_weight else 1)

        def call() -> None:
            for network in networks:
                network.train()
                for _ in range(passes):
                    network.zero_grad(set_to_none=True)
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
                        logits = network(pixels)
                    torch.autograd.backward(logits.float().sum())

        return call

    def _bare_generator(self) -> Callable[[], None]:
        """Forward and backward passes of generator and committee, of as many batches."""
        plan = self.config.synthesis
        untrained = plan.model_copy(update={"steps": 0})
        generator = train_generator(
            untrained, self.networks, self.classes, self.shape, self.config.seed, self.device
        ).train()
        z = torch.randn(plan.batch_size, plan.latent, device=self.device)
        y = torch.arange(plan.batch_size, device=self.device) % self.classes
        committee = [copy.deepcopy(network).eval().requires_grad_(False) for network in self.networks]

        def call() -> None:
            for _ in range(self.steps):
                generator.zero_grad(set_to_none=True)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
                    pixels = generator(z, y)
                    logits = torch.stack([network(pixels) for network in committee])
                torch.autograd.backward(logits.float().sum())

        return call

    def _bare_passes(
        self,
        networks: Sequence[nn.Module],
        images: int,
        precision: str | None = "float32",
        device: torch.device | None = None,
    ) -> Callable[[], None]:
        """Forward passes alone of so many images, as they lie in memory already, in evaluation mode."""
        device = device or self.device
        together = min(images, 512 if device.type == "cuda" else max(1, min(64, 2**19 // math.prod(self.shape[1:]))))
        pixels = torch.rand(together, *self.shape, device=device)
        still = [copy.deepcopy(network).eval() for network in networks]

        def call() -> None:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                for first in range(0, images, together):
                    for network in still:
                        network(pixels[: images - first])

        return call

    def _fit(self, member: Member, reader: BankReader, pool: npt.NDArray[np.int64], steps: int, **options: Any) -> None:
        fit(member, self.config.student, reader, pool, pool[-self.count :], steps, self.config.seed, **options)

    def _prior_images(self, count: int) -> Tensor:
        synthesis = self.config.synthesis
        stream = torch.Generator().manual_seed(self.config.seed)
        tones = _tones(synthesis.moments[0]) if synthesis.moments else None
        return to_uint8(sample_prior(synthesis.prior, count, self.shape, stream, tones))

    def _tones_of_synthesis(self) -> dict[str, Any]:
        """What `synthesise` is to be told of tones; revisions before `fedcpsc.priors.tones` see to it themselves."""
        moments = self.config.synthesis.moments
        return {"tones": _tones(moments[0])} if moments and find_spec("fedcpsc.priors.tones") else {}

    def _bank(self) -> tuple[BankReader, npt.NDArray[np.int64]]:
        rows = min(self.config.queries.answers_per_silo, _MOST_ROWS)
        bank = _bank_class()(self.scratch / "answers", self.shape, self.classes, ["bench"])
        batch = bank.add_batch(0, self._prior_images(rows).numpy(), np.full(rows, -1, np.int64))
        random = np.random.default_rng(self.config.seed)
        answers = random.dirichlet(np.full(self.classes, 0.1), rows).astype(np.float32)
        bank.add_answers(batch.query_id, "bench", answers)
        bank.set_targets(batch, answers)
        reader = BankReader(bank, self.device)
        reader.refresh()
        return reader, np.arange(rows)


def open_silo(config: RunConfig, classes: int, shape: tuple[int, int, int], folder: Path) -> tuple[Any, nn.Module]:
    """An open gatekeeper in front of an untrained teacher as configured, and its network."""
    manifests, policies = (import_module(f"fedcpsc.{name}") for name in ("teachers.manifest", "gatekeeper.policy"))
    opening = import_module("fedcpsc.gatekeeper.opening")
    plan = config.teachers
    architecture = plan.architecture if isinstance(plan.architecture, str) else plan.architecture[0]
    network, kind, name, states = _untrained(plan, architecture, classes, shape, config.seed)
    weights = save({key: tensor.contiguous() for key, tensor in states.items()})
    manifest = manifests.Manifest(
        silo="bench",
        population="bench",
        kind=kind,
        architecture=name,
        width=plan.width,
        classes=classes,
        image_shape=shape,
        normalisation=manifests.Normalisation(mean=(0.5,) * shape[0], std=(0.5,) * shape[0]),
        train_size=None,
        training={},
        weights_sha256=manifests.sha256_hex(weights),
        fingerprint="0" * 64,
        private_class_counts=None,
    )
    (folder / manifests.WEIGHTS_FILE).write_bytes(weights)
    manifests.save_manifest(manifest, folder)
    policies.save_policy(policies.Policy(answers=10**9, images_per_query=10**6), folder / policies.POLICY_FILE)
    opening.begin_ledger(folder).close()
    return opening.open_gatekeeper(folder, tried=False), network


def _untrained(
    plan: Any, architecture: str, classes: int, shape: tuple[int, int, int], seed: int
) -> tuple[nn.Module, str, str, Mapping[str, Tensor]]:
    """A teacher's network as its training begins, with the kind, the architecture and the tensors of its manifest."""
    if getattr(plan, "weights", None) is None:
        built = build_classifier(architecture, classes, shape, plan.width, seed=seed)
        return built, "torch", architecture, built.state_dict()
    training, plain = (import_module(f"fedcpsc.training.{name}") for name in ("network", "plain"))
    network = training.begun(plan, architecture, classes, shape, seed, training.public_weights(plan))
    made = plain.trained(network, architecture, None)
    return network, made.kind, made.architecture, made.states


def _tones(mean: float) -> Any:
    """What a prior's tones are bent to; revisions before `fedcpsc.priors.tones` take the mean alone."""
    known = find_spec("fedcpsc.priors.tones")
    return import_module("fedcpsc.priors.tones").Tones(mean) if known else mean


def _bank_class() -> Any:
    """The answer bank's class; revisions before `fedcpsc.runs` keep it in `fedcpsc.distillation`."""
    package = "fedcpsc.runs" if find_spec("fedcpsc.runs") else "fedcpsc.distillation"
    return import_module(f"{package}.answer_bank").AnswerBank


STAGES = ("prior", "generator", "selection", "student", "committee", "final", "evaluation", "answers", "round")


def measure(
    job: dict[str, Any], config: RunConfig, jobs: Iterable[str], reply: Callable[[dict[str, Any]], None]
) -> None:
    """Sets one stage up, warms it up, and times it as often as asked."""
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    with tempfile.TemporaryDirectory(prefix="fedcpsc-bench-") as scratch:
        channels, height, width = job["image_shape"]
        bench = Bench(config, job["classes"], (channels, height, width), job["steps"], Path(scratch))
        work: Work = getattr(bench, job["do"])()
        at_rest = resident("VmRSS")
        digest = hashlib.sha256()
        for tensor in work.call():  # the warm-up, from the seed's own state: its outcome is the same in every process
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        reply(
            {
                "ready": str(Path(fedcpsc.__file__).resolve().parent),
                "values": config.model_dump(mode="json"),
                "outcome": digest.hexdigest()[:16],
                "units": work.units,
                "images": work.images,
                "device": str(bench.device),
                "threads": torch.get_num_threads(),
            }
        )
        on_gpu = bench.device.type == "cuda"
        if work.bare is not None:
            work.bare()  # its own warm-up
        for number, _ in enumerate(jobs):
            reply(timed_beside_bare(work, on_gpu, bare_first=number % 2 == 1))
        reply(
            {
                "peak_MiB": resident("VmHWM"),
                "at_rest_MiB": at_rest,
                "gpu_peak_MiB": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
            }
        )


def timed_beside_bare(work: Work, on_gpu: bool, *, bare_first: bool) -> dict[str, float]:
    """Seconds of one call, and of its bare passes right before or after it."""
    if work.bare is None:
        return timed(work.call, on_gpu)
    calls: list[Callable[[], object]] = [work.call, work.bare]
    both = [timed(call, on_gpu) for call in (reversed(calls) if bare_first else calls)]
    whole, bare = reversed(both) if bare_first else both
    return {**whole, **{f"bare_{clock}": seconds for clock, seconds in bare.items()}}


def timed(call: Callable[[], object], on_gpu: bool) -> dict[str, float]:
    """Seconds of the wall clock and of this process's CPU; what a GPU still works on is waited for."""
    if on_gpu:
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def curve(job: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """One whole run in this process: silos, gatekeepers, ledgers and the round loop.

    Silos that another run of the same code trained are copied from `job["kept"]`, their ledgers unspent.
    """
    from fedcpsc.data.sources import evaluation_images  # noqa: PLC0415 - the stages need none of it
    from fedcpsc.distillation.run import distill  # noqa: PLC0415
    from fedcpsc.distillation.transport import LocalTransport  # noqa: PLC0415
    from fedcpsc.gatekeeper.opening import open_gatekeeper  # noqa: PLC0415
    from fedcpsc.silos.make import make_silos  # noqa: PLC0415

    silos, run_dir = Path(job["folder"]) / "silos", Path(job["folder"]) / "run"
    made_from = [config.seed, *(part.model_dump(mode="json") for part in (config.data, config.silos, config.teachers))]
    kept = Path(job["kept"]) / hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    if kept.exists():
        shutil.copytree(kept, silos)
    make_silos(config, silos)
    if not kept.exists():
        shutil.copytree(silos, kept)
    gatekeepers = [open_gatekeeper(silos / str(index)) for index in range(config.silos.count)]
    teachers = LocalTransport(gatekeepers)
    try:
        result = distill(config, teachers, run_dir, evaluation=evaluation_images(config))
    finally:
        teachers.close()
        for gatekeeper in gatekeepers:
            gatekeeper.close()
    return {
        "final": [images_answered(result), result["student"]["accuracy"]],
        "split": "validation" if config.data.validation else "test",
    }


def images_answered(result: Mapping[str, Any]) -> int:
    """Largest number of images that a silo answered; the measured revision may be one that called them queries."""
    return int(result["answers_per_silo"] if "answers_per_silo" in result else result["queries_per_silo"])


def resident(key: str) -> float:
    """Resident memory in MiB, now (VmRSS) or at most (VmHWM), of this program alone."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # elsewhere only the peak is known; bytes on macOS
    return most / (2**20 if sys.platform == "darwin" else 1024)


def _weights(members: Iterable[Member]) -> list[Tensor]:
    return [tensor for member in members for tensor in member.network.state_dict().values()]


def _own_channel() -> TextIO:
    """Stdout for replies alone: what any library prints goes to stderr."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def main() -> int:
    """Takes one job; an error goes back as one line."""
    channel = _own_channel()

    def reply(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    job = json.loads(sys.stdin.readline())
    try:
        config = load_config(job["config"], job["set"])
        if job["do"] == "curve":
            reply(curve(job, config))
        else:
            measure(job, config, iter(sys.stdin.readline, ""), reply)
    except Exception as error:  # whatever it is, the other process shows it
        reply({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
