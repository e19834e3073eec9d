# SPDX-License-Identifier: Apache-2.0
"""One whole white-box run: teacher, epochs with checkpoints, and a folder that is left complete.

Not private and not meant to be: the teacher's gradients, features and batch-norm statistics are used in this process.
Held-out images are only looked at; the last epoch's student is the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch

from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.errors import RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.device import choose_device
from fedcpsc.models.precision import check_precision
from fedcpsc.models.registry import Classifier, check_architecture
from fedcpsc.provenance import commit, versions
from fedcpsc.runs.layout import (
    CONFIG_FILE,
    GENERATOR_FILE,
    METRICS_FILE,
    RESULT_FILE,
    SAMPLES_FILE,
    STUDENT_FILE,
    WHITE_BOX_CHECKPOINT_FILE,
    WHITE_BOX_TEACHER_FILE,
)
from fedcpsc.runs.result import RESULT_SCHEMA, Network, WhiteBoxResult
from fedcpsc.runs.sealed import read_sealed, write_sealed
from fedcpsc.seeding import derive_seed
from fedcpsc.strict_json import format_json
from fedcpsc.transfers import uploaded
from fedcpsc.typed_yaml import load_as, save_config
from fedcpsc.white_box.engine import Engine, generator_rate, student_rate
from fedcpsc.white_box.objective import Terms
from fedcpsc.white_box.picture import save_samples
from fedcpsc.white_box.plan import WhiteBoxConfig
from fedcpsc.white_box.quirks import Quirks
from fedcpsc.white_box.teacher import make_teacher, read_teacher, save_network

__all__ = ["OnLine", "accuracy", "run_white_box"]

OnLine: TypeAlias = Callable[[dict[str, Any]], None]

_EVALUATION_BATCH = 500


def run_white_box(
    config: WhiteBoxConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    on_line: OnLine = lambda line: None,
    tell: Callable[[str], None] = lambda text: None,
    quirks: Quirks | None = None,
) -> WhiteBoxResult:
    """Runs all epochs; returns the result.

    Leaves config.yaml, metrics.jsonl (a line an epoch), teacher, student and generator as safetensors, samples.png and
    result.json. A run resumed on a CPU gives the same student as one that was not interrupted, bit for bit.

    Args:
        config: the run's.
        run_dir: created; with `resume` it holds an earlier attempt at the same configuration.
        on_line: takes each line of metrics.jsonl.
        tell: takes what is done before the epochs begin.
        quirks: None takes what `config.reference_quirks` asks for.

    Raises:
        ConfigError, DataError, TeacherError: as `make_teacher`; a ConfigError too where the device lacks `precision`.
        RunError: the folder holds another run, or training diverged.
    """
    quirks = quirks or Quirks.all(config.reference_quirks)
    check_architecture(config.teacher.architecture)
    check_architecture(config.student.architecture)
    _check_folder(run_dir, config, resume=resume)
    device = choose_device(config.runtime.device)
    check_precision("precision", config.precision, device, emulation=config.runtime.emulation, resumed=resume)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    evaluation = load_evaluation(config.data, config.seed)
    with gpu_arithmetic(device, tf32=config.runtime.tf32):
        return _run(config, run_dir, device, evaluation, quirks, on_line, tell, resume=resume)


def _run(
    config: WhiteBoxConfig,
    run_dir: Path,
    device: torch.device,
    evaluation: ImageSet | None,
    quirks: Quirks,
    on_line: OnLine,
    tell: Callable[[str], None],
    *,
    resume: bool,
) -> WhiteBoxResult:
    """The run, once all is checked; arguments as for `run_white_box`."""
    begun = time.monotonic()
    run_dir.mkdir(parents=True, exist_ok=True)
    kept_teacher = run_dir / WHITE_BOX_TEACHER_FILE
    if resume and kept_teacher.exists():
        images = load_train(config.data, config.seed)
        teacher = read_teacher(config, kept_teacher, images.classes, images.image_shape)
    else:
        teacher = make_teacher(config, device, tell)
        save_config(config, run_dir / CONFIG_FILE)  # before the teacher: one without it is of an unknown run
        save_network(teacher, kept_teacher)
    teacher_seconds = time.monotonic() - begun
    engine = Engine(config, teacher, device, quirks)
    kept = _load(run_dir, engine, tell) if resume else {}
    metrics = _metrics(run_dir, kept.get("next_epoch", 0))
    seconds, best = kept.get("seconds", 0.0), kept.get("best")
    for epoch in range(kept.get("next_epoch", 0), config.epochs):
        begun = time.monotonic()
        line = _epoch(engine, epoch)
        if evaluation is not None and ((epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs):
            line["student_accuracy"] = accuracy(engine.student, evaluation)
            if quirks.best_on_test and (best is None or line["student_accuracy"] > best["accuracy"]):
                best = {"accuracy": line["student_accuracy"], "epoch": epoch, "student": _copied(engine.student)}
        seconds += time.monotonic() - begun
        line["seconds"] = round(seconds, 3)
        with metrics.open("a", encoding="utf-8") as file:
            file.write(format_json(line, metrics) + "\n")
        _save(run_dir, engine, {"next_epoch": epoch + 1, "seconds": seconds, "best": best})
        on_line(line)
    if best is not None:
        engine.student.load_state_dict(best["student"])
    return _leave(run_dir, engine, evaluation, best, {"teacher": teacher_seconds, "distillation": seconds})


def accuracy(network: Classifier, images: ImageSet) -> float:
    """Share of `images` classified rightly, in [0, 1]; leaves the network's mode as it was."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    with torch.inference_mode():
        for start in range(0, len(images), _EVALUATION_BATCH):
            part = slice(start, start + _EVALUATION_BATCH)
            x = to_pixels(uploaded(images.images[part], device))
            right += (network(x).argmax(1) == uploaded(images.labels[part], device)).sum()
    network.train(training)
    return right.item() / len(images)


def _epoch(engine: Engine, epoch: int) -> dict[str, Any]:
    """One epoch's rounds; all its randomness follows from (seed, epoch)."""
    config = engine.config
    engine.set_rates(epoch)
    stream = torch.Generator(engine.device).manual_seed(derive_seed(config.seed, "epoch", epoch))
    rounds = [torch.cat(engine.round(stream)) for _ in range(config.iterations)]
    means = torch.stack(rounds).mean(0).tolist()  # the epoch's one wait for the device
    names = Terms.names()
    generator, student = (dict(zip(names, part, strict=True)) for part in (means[: len(names)], means[len(names) :]))
    if not all(torch.isfinite(torch.tensor(means)).tolist()):
        rate = config.student.learning_rate
        constraint = f"training diverged in epoch {epoch + 1}"
        raise RunError(explain("student.learning_rate", rate, constraint, "lower it, or lengthen student.warm_up"))
    return {
        "epoch": epoch + 1,
        "epochs": config.epochs,
        "generator": generator,
        "student": {name: student[name] for name in ("total", "kd", "l2", "ce")},
        "generator_rate": generator_rate(config, 0 if engine.quirks.adam_anew else epoch),
        "student_rate": student_rate(config, epoch),
    }


def _check_folder(run_dir: Path, config: WhiteBoxConfig, *, resume: bool) -> None:
    saved = run_dir / CONFIG_FILE
    if not saved.exists():
        return
    if not resume:
        remedy = "resume it with --resume, or choose another output.name"
        raise RunError(explain("run", str(run_dir), "holds a run already", remedy))
    before, now = load_as(WhiteBoxConfig, saved).model_dump(), config.model_dump()
    changed = [key for key in now if before[key] != now[key] and key != "runtime"]
    if changed:
        remedy = "resume with the configuration it began with, or give the new run another name"
        raise RunError(explain("run", str(run_dir), f"began with another configuration ({', '.join(changed)})", remedy))


def _metrics(run_dir: Path, epochs: int) -> Path:
    """metrics.jsonl, cut to the epochs that the checkpoint has seen."""
    path = run_dir / METRICS_FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    write_whole(path, "".join(lines[:epochs]))
    return path


def _save(run_dir: Path, engine: Engine, progress: dict[str, Any]) -> None:
    """Replaces the checkpoint, whole or not at all."""
    state = {**progress, "engine": engine.state()}
    write_sealed(run_dir / WHITE_BOX_CHECKPOINT_FILE, lambda file: torch.save(state, file))


def _load(run_dir: Path, engine: Engine, tell: Callable[[str], None]) -> dict[str, Any]:
    """What the checkpoint says beside the engine's state, which is restored; empty where there is none."""
    path = run_dir / WHITE_BOX_CHECKPOINT_FILE
    if not path.exists():
        return {}
    try:
        kept: dict[str, Any] = torch.load(read_sealed(path, tell), map_location=engine.device, weights_only=True)
        engine.load_state(kept.pop("engine"))
    except Exception as error:  # torch raises whatever damaged bytes lead it to
        remedy = "start anew with --overwrite"
        raise RunError(explain("checkpoint", str(path), f"cannot be read ({error})", remedy)) from error
    return kept


def _copied(network: Classifier) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _leave(
    run_dir: Path,
    engine: Engine,
    evaluation: ImageSet | None,
    best: dict[str, Any] | None,
    seconds: dict[str, float],
) -> WhiteBoxResult:
    """Writes what a finished run leaves; the result last, and returned."""
    config = engine.config
    save_network(engine.student, run_dir / STUDENT_FILE)
    save_network(engine.generator, run_dir / GENERATOR_FILE)
    save_samples(run_dir / SAMPLES_FILE, engine)

    def described(network: Classifier, architecture: str) -> Network:
        return {
            "architecture": architecture,
            "parameters": sum(p.numel() for p in network.parameters()),
            "accuracy": None if evaluation is None else accuracy(network, evaluation),
        }

    steps = config.epochs * config.iterations * (config.generator_steps + config.student_steps)
    result: WhiteBoxResult = {
        "schema": RESULT_SCHEMA,
        "name": config.output.name,
        "mode": "white_box",
        "private": False,
        "student": described(engine.student, config.student.architecture),
        "teacher": described(engine.teacher, config.teacher.architecture),
        "generator_parameters": sum(p.numel() for p in engine.generator.parameters()),
        "result_of_epoch": config.epochs if best is None else best["epoch"] + 1,
        "chosen_on_held_out": best is not None,
        "reference_quirks": config.reference_quirks,
        "teacher_images": steps * config.batch_size,
        "evaluation_images": None if evaluation is None else len(evaluation),
        "evaluated_on": "validation" if config.data.validation else "test",
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "device": str(engine.device),
        "threads": torch.get_num_threads(),
        "seed": config.seed,
        "versions": versions(),
        "commit": commit(),
    }
    write_whole(run_dir / RESULT_FILE, format_json(result, run_dir / RESULT_FILE, indent=2) + "\n")
    return result
