# SPDX-License-Identifier: Apache-2.0
"""Runs over fake silos whose answers another run begins with, or another student is fitted to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from support.fakes import FakeSilo
from support.tiny_runs import evaluation

from fedcpsc.config import RunConfig
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.runs.result import RunResult
from fedcpsc.typed_yaml import validate

__all__ = ["a_run", "assert_same_student", "changed", "files_of", "of_teacher"]


def changed(config: RunConfig, **changes) -> RunConfig:
    """The configuration with changes that are named `section__key`."""
    tree = config.model_dump(mode="json")
    for key, value in changes.items():
        section, _, name = key.partition("__")
        tree[section][name] = value
    return validate(RunConfig, tree, "test")


def a_run(folder: Path, config: RunConfig, silos=None, **options) -> tuple[RunResult, list[FakeSilo]]:
    """A run over fake silos, measured on held-out images; its result, and the silos."""
    fakes = silos or [FakeSilo(f"silo-{i}") for i in range(config.silos.count)]
    return distill(config, LocalTransport(fakes), folder, evaluation=evaluation(), **options), fakes


def of_teacher(version: str, silo: FakeSilo) -> FakeSilo:
    """The same silo, which says that this teacher answers."""
    silo.description = replace(silo.description, teacher=version)
    return silo


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same_student(one: Path, other: Path) -> None:
    """The students of two runs' folders have the same weights, bit for bit."""
    first, second = (load_file(folder / "student.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
