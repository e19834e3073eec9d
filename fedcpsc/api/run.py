# SPDX-License-Identifier: Apache-2.0
"""A run's folder as an object: its student, its bank, its figures. Whoever made the run, and wherever."""

from __future__ import annotations

import copy
import os
import shutil
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

from fedcpsc.api.arrays import Images, as_images
from fedcpsc.api.bank import RunBank
from fedcpsc.api.curve import Curve
from fedcpsc.api.result import Result
from fedcpsc.config import RunConfig
from fedcpsc.distillation.evaluate import predict
from fedcpsc.errors import BankError, RunError, explain
from fedcpsc.export.export_student import export_run
from fedcpsc.export.plan import format_named
from fedcpsc.printable import printable
from fedcpsc.report.page import write_report
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.runs.read import RunFacts, gather
from fedcpsc.runs.student import Student, load_student
from fedcpsc.runs.student_start import read_student_start

if TYPE_CHECKING:
    from fedcpsc.api.federation import Federation

__all__ = ["Run", "open_run"]

_SHOWN = 10  # notes


class Run:
    """A run. Made by `fedcpsc.distill`, or of any run's folder by `fedcpsc.open_run`; also while the run goes on.

    Args:
        folder: folder of the run.
        federation: silos of this process that were asked; None where it was another process's run.
        remove: folder that goes with this object; None keeps everything.
        module: module of the caller's own that was fitted, or one like it; None where the configuration names the
            student.
        notes: lines for whoever asked for the run.

    Attributes:
        federation: silos of this process that were asked; None where it was another process's run.
        notes: what was told while the run went on, a line each: classes that silos do not share, silos that were
            suspected or not asked any more; empty for a run that was opened.
    """

    def __init__(
        self,
        folder: Path,
        federation: Federation | None = None,
        remove: Path | None = None,
        module: nn.Module | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._remove = None if remove is None else weakref.finalize(self, shutil.rmtree, remove, ignore_errors=True)
        self._known: RunFacts | None = None
        self._module = None if module is None else copy.deepcopy(module)
        self.federation = federation
        self.notes = tuple(notes)

    @property
    def folder(self) -> Path:
        """The run's folder; of a temporary one, see `save`."""
        return self._folder

    @property
    def temporary(self) -> bool:
        """Whether the folder goes with this object."""
        return self._remove is not None and self._remove.alive

    @property
    def facts(self) -> RunFacts:
        """All that the folder tells; read once where the run has finished, and anew each time until then.

        Raises:
            RunError, BankError, ConfigError: what lies there is damaged, or is no run.
        """
        if self._known is None or self._known.result is None:
            self._known = gather(self._folder)
        return self._known

    @property
    def name(self) -> str:
        """The run's name."""
        return self.facts.name

    @property
    def config(self) -> RunConfig:
        """The run's configuration, every value of it."""
        return self.facts.config

    @property
    def own_student(self) -> bool:
        """Whether the student is a module of somebody's own, whose class no configuration names."""
        return read_student_start(self._folder)["module"] is not None

    @property
    def module(self) -> nn.Module | None:
        """A copy of that module as it was given; None where it was not."""
        return None if self._module is None else copy.deepcopy(self._module)

    @property
    def finished(self) -> bool:
        """Whether the run has finished."""
        return self.facts.result is not None

    @property
    def result(self) -> Result:
        """What the run reached and cost.

        Raises:
            RunError: it has not finished.
        """
        facts = self.facts
        if facts.result is None:
            why = f"has not finished{f': {facts.error}' if facts.error else ''}"
            raise RunError(explain("run", str(self._folder), why, "let it end: resume it"))
        return Result.of(facts.result, facts.silos)

    @property
    def curve(self) -> Curve:
        """How the run went: a row for each round and for each part of the final fit."""
        return Curve(self.facts.lines)

    @property
    def bank(self) -> RunBank:
        """What was asked and answered.

        Raises:
            BankError: the folder has no bank.
        """
        view = self.facts.bank
        if view is None:
            raise BankError(explain("run", str(self._folder), "has no answer bank", "open a run that kept its bank"))
        return RunBank(view, self)

    @property
    def student(self) -> nn.Module:
        """The student: a torch module in evaluation mode on the CPU, the same object each time.

        Of the caller's own class where `distill` was given a module; that one is left as it is. It maps float32
        [N, C, H, W] with pixels in [-1, 1], which is `x / 127.5 - 1` of uint8 pixels x, to logits
        [N, K] in the order of `result.class_names`. `predict` takes images as they are.

        Raises:
            RunError: the run has not finished, the weights are damaged, or the student is a module of somebody's own
                that `open_run` was not given.
        """
        loaded = self._loaded
        return loaded.network if loaded.start.own is None else loaded.network.stored

    @cached_property
    def _loaded(self) -> Student:
        return load_student(self.facts, self._module)

    def predict(self, images: Images) -> npt.NDArray[np.float32]:
        """The student's probabilities, float32 [N, K].

        Args:
            images: uint8 [N, C, H, W], array or tensor; grey images may be [N, H, W].

        Raises:
            DataError: images of another type or shape.
            RunError: the run has not finished, or the student's weights are damaged.
        """
        student = self._loaded
        pixels = as_images(images, "images", student.image_shape)
        return predict(student.network, pixels, self.config.evaluation.batch_size)

    def report(self) -> Path:
        """Draws the run's page anew, whether it has finished or not; returns the path of `report.html`.

        Raises:
            RunError, BankError: what lies in the folder is damaged, or cannot be written.
        """
        return write_report(self._folder)

    def export(
        self,
        file_format: str = "onnx",
        folder: str | os.PathLike[str] | None = None,
        *,
        unlabelled: Images | str | os.PathLike[str] | None = None,
        class_shares: Mapping[str, float] | str | os.PathLike[str] | None = None,
    ) -> Path:
        """Writes the student in a format that others open, checked on 1,000 inputs, with a model card beside it.

        Args:
            file_format: "onnx", "torch-export" or "safetensors".
            folder: folder to write into; None takes `export/` in the run's folder, or `export-unlabelled/` where
                `unlabelled` is given. A temporary run needs one.
            unlabelled: pictures like those that the student is to be used on, without labels, at least five for each
                class: uint8 [N, C, H, W], or the place of picture files. The class biases of what is written are
                fitted to them; the run and `student` stay as they are.
            class_shares: how often each class occurs among such pictures, a number > 0 by the name of the class, or
                a YAML file of these; None: all equally often.

        Returns:
            Path of the model's file.

        Raises:
            ConfigError: the format is unknown, a package that it needs is missing, or the shares cannot be used.
            DataError: the unlabelled pictures cannot be read, are of another shape, or are too few.
            RunError: the run has not finished, is temporary and no folder is named, or the file did not pass its check.
        """
        if self.temporary and folder is None:
            constraint = "is temporary, and what is exported into its folder would go with it"
            raise RunError(explain("run", self.name, constraint, "name a folder, or keep the run by run.save"))
        chosen = format_named(file_format)
        pictures: Path | npt.NDArray[np.uint8] | None = None
        if isinstance(unlabelled, str | os.PathLike):
            pictures = Path(unlabelled)
        elif unlabelled is not None:
            pictures = as_images(unlabelled, "unlabelled", self._loaded.image_shape)
        written = export_run(
            self._folder,
            chosen,
            None if folder is None else Path(folder).absolute(),
            module=self._module,
            unlabelled=pictures,
            class_shares=Path(class_shares) if isinstance(class_shares, str | os.PathLike) else class_shares,
        )
        return written[0]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copies the run's folder, bank and all; a temporary run then lies there, and is no longer temporary.

        Args:
            folder: path of the copy, where nothing is yet.

        Raises:
            RunError: something is there, or it cannot be written.
        """
        target = Path(folder).absolute()
        if target.exists():
            raise RunError(explain("folder", str(target), "is there already", "name a new folder"))
        partial = target.with_name(f"{target.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self._folder, partial)
            partial.rename(target)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            shown = f"cannot be written ({error.strerror or error})"
            raise RunError(explain("folder", str(target), shown, "free space, or choose another")) from error
        if self._remove is not None and self._remove.alive:
            self._remove()
            self._folder, self._known = target, None
        return target

    def __repr__(self) -> str:
        facts = self.facts
        if facts.result is None:
            return f"<Run {facts.name}, {len(facts.rounds)} of {facts.config.queries.rounds} rounds done>"
        return "\n".join([str(self.result), *map(printable, self.notes[:_SHOWN]), self._place()])

    def _repr_html_(self) -> str:
        if not self.finished:
            return escape(repr(self))
        lines = [*self.notes[:_SHOWN], self._place()]
        return self.result._repr_html_() + "".join(f"<div>{escape(line)}</div>" for line in lines)

    def _place(self) -> str:
        return f"folder: {self._folder}{' (temporary; keep it with run.save)' if self.temporary else ''}"


def open_run(folder: str | os.PathLike[str], student: nn.Module | None = None) -> Run:
    """The run in a folder: a simulation's, a deployment's or one of `fedcpsc.distill`; nothing in it is changed.

    Args:
        folder: folder of the run, finished or not.
        student: module like the one that was fitted, where that was the caller's own: its weights do not matter.

    Raises:
        RunError: it is no run's folder, or a file in it is damaged.
        BankError, ConfigError: its bank or configuration is damaged.
    """
    path = Path(folder).absolute()
    if not (path / CONFIG_FILE).is_file() and (path / "0").is_dir():
        shown = "holds silos, and no run"
        raise RunError(explain("run", str(path), shown, "give the run's folder, for example runs/digits"))
    run = Run(path, module=student)
    run.facts  # noqa: B018 - read now, so that what is damaged is told here
    return run
