# SPDX-License-Identifier: Apache-2.0
"""Each format: written, opened again by its own reader, and compared with the network on 1,000 images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fedcpsc.choices import DEFAULT_MIXTURE
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.export.plan import CHECK_INPUTS, Check, Format
from fedcpsc.models.adapted import Adapted, stored_tensors
from fedcpsc.models.student_file import ABOUT_FILE, INPUT_SCALE
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.runs.layout import RESULT_FILE
from fedcpsc.runs.student import Student

__all__ = ["check_packages", "write_checked"]

_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_ONNX_TOLERANCE = 1e-4  # of the largest logit, at least of 1: other kernels add in another order
_BATCHES = (1, 99, *[100] * 9)  # of several sizes: the batch is dynamic

Run = Callable[[Tensor], Tensor]


def check_packages(file_format: Format) -> None:
    """Does nothing where the format can be written here.

    Raises:
        ConfigError: naming what is missing.
    """
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None] if file_format is Format.ONNX else []
    if missing:
        remedy = "pip install 'fedcpsc[onnx]', or choose another format"
        raise ConfigError(explain("--format", file_format.value, f"needs {', '.join(missing)}", remedy))


def write_checked(student: Student, file_format: Format, path: Path) -> Check:
    """Writes the file; it appears at `path` only when it has passed.

    Raises:
        RunError: what was written does not compute what the student computes.
    """
    partial = path.with_name(f"partial-{path.name}")
    write, read, checked_with = {
        Format.ONNX: (_write_onnx, _read_onnx, "onnxruntime on the CPU"),
        Format.TORCH_EXPORT: (_write_torch_export, _read_torch_export, "torch.export.load"),
        Format.SAFETENSORS: (_write_safetensors, _read_safetensors, _rebuilt_by(student)),
    }[file_format]
    try:
        _written(student, file_format, write, partial)
        difference, largest = _compare(student, read(student, partial))
        tolerance = _ONNX_TOLERANCE * max(1.0, largest) if file_format is Format.ONNX else 0.0
        if not difference <= tolerance:  # also when it is NaN
            constraint = f"must be at most {tolerance:g} on {CHECK_INPUTS} images"
            raise RunError(
                explain("difference", difference, constraint, f"report it with the versions in {RESULT_FILE}")
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Check(CHECK_INPUTS, difference, tolerance, checked_with)


def _written(student: Student, file_format: Format, write: Callable[[Student, Path], None], path: Path) -> None:
    """Writes the file.

    Raises:
        RunError: torch cannot trace a network that is not of this project.
    """
    try:
        write(student, path)
    except RunError:
        raise
    except Exception as error:  # of torch's tracer, which has many classes of them
        if not isinstance(student.network, Adapted):
            raise
        reason = (str(error) or type(error).__name__).partition("\n")[0][:200]
        constraint = f"torch cannot trace {student.architecture} ({type(error).__name__}: {reason})"
        remedy = "use --format safetensors, or change what its forward does"
        raise RunError(explain("--format", file_format.value, constraint, remedy)) from error


def _rebuilt_by(student: Student) -> str:
    if student.start.own is not None:
        return f"a copy of {student.architecture}"
    if student.width is None or student.plan.normalisation is not None:
        return "fedcpsc.models.students.build_student"
    return "fedcpsc.models.registry.build_classifier"


def _compare(student: Student, run: Run) -> tuple[float, float]:
    """Largest absolute difference of the logits, and the largest absolute logit."""
    difference = largest = 0.0
    for images in _images(student.image_shape):
        with torch.inference_mode():
            wanted = student.network(images)
        given = run(images)
        if given.shape != wanted.shape:
            constraint = f"must be {list(wanted.shape)}"
            raise RunError(explain("logits", list(given.shape), constraint, "report it with the versions"))
        each = (given - wanted).abs().max()
        difference = float("nan") if each.isnan() else max(difference, float(each))
        largest = max(largest, float(wanted.abs().max()))
    return difference, largest


def _images(shape: tuple[int, int, int]) -> Iterator[Tensor]:
    """Procedural images of the default kinds, always the same."""
    stream = torch.Generator().manual_seed(0)
    for count in _BATCHES:
        yield sample_prior(dict.fromkeys(DEFAULT_MIXTURE, 1.0), count, shape, stream)


def _traced(student: Student) -> dict[str, Any]:
    example = torch.zeros(2, *student.image_shape)
    return {"args": (example,), "dynamic_shapes": ({0: torch.export.Dim("batch", min=1)},)}


def _about(student: Student) -> dict[str, str]:
    names = {} if student.class_names is None else {"class_names": json.dumps(student.class_names)}
    width = {} if student.width is None else {"width": str(student.width)}
    constants = student.plan.normalisation
    inside = {} if constants is None else {"normalisation": constants.model_dump_json()}
    return {
        "architecture": student.architecture,
        **width,
        "classes": str(student.classes),
        **names,
        "image_shape": "x".join(str(size) for size in student.image_shape),
        "input": INPUT_SCALE,
        **inside,
        "output": "logits",
    }


def _write_onnx(student: Student, path: Path) -> None:
    options: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamo": True, "verbose": False}
    program = torch.onnx.export(student.network, **_traced(student), **options)
    if program is None:
        raise RunError(explain("onnx", student.architecture, "torch exported nothing", "use --format torch-export"))
    program.model.metadata_props.update(_about(student))
    program.save(str(path))


def _read_onnx(student: Student, path: Path) -> Run:
    import onnxruntime  # noqa: PLC0415 - an optional extra

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _write_torch_export(student: Student, path: Path) -> None:
    traced = _traced(student)
    program = torch.export.export(student.network, traced["args"], dynamic_shapes=traced["dynamic_shapes"])
    torch.export.save(program, str(path), extra_files={ABOUT_FILE: json.dumps(_about(student))})


def _read_torch_export(student: Student, path: Path) -> Run:
    return _quietly(torch.export.load(str(path)).module())


def _write_safetensors(student: Student, path: Path) -> None:
    save_file(stored_tensors(student.network), path, metadata=_about(student))


def _read_safetensors(student: Student, path: Path) -> Run:
    return _quietly(student.rebuilt(path))


def _quietly(network: Run) -> Run:
    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(images)

    return run
