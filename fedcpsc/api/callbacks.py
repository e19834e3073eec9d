# SPDX-License-Identifier: Apache-2.0
"""What a program may do while a run goes on: subclasses of `Callback`, called in the run's own thread.

A callback ends no run: answers are paid for, and a run costs more than its progress display. Where one raises an
exception, a `RuntimeWarning` names it and shows what it raised; it is not called again in that run, which goes on.
KeyboardInterrupt and SystemExit are no such exceptions: they stop the run, which can be resumed.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fedcpsc.api.result import Result
from fedcpsc.config import RunConfig
from fedcpsc.runs.metrics import MetricsLine, describe_line

__all__ = ["Callback", "ProgressLine", "RunStart", "Told"]


@dataclass(frozen=True)
class RunStart:
    """A run that begins.

    Attributes:
        folder: path of the run's folder.
        config: configuration of the run.
        silos: names of the federation's silos.
        resumed: whether an earlier attempt at the run is gone on with.
    """

    folder: Path
    config: RunConfig
    silos: tuple[str, ...]
    resumed: bool

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.output.name


class Callback:
    """Base of callbacks: each method does nothing, a subclass says what it wants to know.

    For one run, the calls are `on_start`, then `on_round` for each round and `on_final` for each part of the final fit,
    then either `on_end` or `on_failure`.
    """

    def on_start(self, start: RunStart) -> None:
        """Called before any silo is asked.

        Args:
            start: run that begins.
        """

    def on_round(self, line: MetricsLine) -> None:
        """Called after each round.

        Args:
            line: line of the run's metrics.jsonl.
        """

    def on_final(self, line: MetricsLine) -> None:
        """Called after each part of the final fit.

        Args:
            line: line of the run's metrics.jsonl.
        """

    def on_end(self, result: Result) -> None:
        """Called when the run has finished.

        Args:
            result: result of the run.
        """

    def on_failure(self, error: BaseException) -> None:
        """Called when the run failed or was stopped; the error is raised afterwards.

        Args:
            error: what ended it.
        """


class ProgressLine(Callback):
    """Writes a line after each round and at the end of the final fit.

    Args:
        stream: text stream to write to; None: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._name = ""

    def on_start(self, start: RunStart) -> None:
        """Notes the run's name."""
        self._name = start.name

    def on_round(self, line: MetricsLine) -> None:
        """Writes how far the run is."""
        self._write(line)

    def on_final(self, line: MetricsLine) -> None:
        """Writes how well the student does, where it was measured."""
        if "student_accuracy" in line:
            self._write(line)

    def _write(self, line: MetricsLine) -> None:
        print(f"{self._name}: {describe_line(line)}", file=self._stream or sys.stderr, flush=True)


class Told:
    """Passes a run's events on to callbacks, and lets none of them end the run.

    Args:
        callbacks: callbacks of the run.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)

    def start(self, start: RunStart) -> None:
        """Passes on that the run begins."""
        self._each("on_start", lambda callback: callback.on_start(start))

    def line(self, line: MetricsLine) -> None:
        """Passes on a line of metrics.jsonl."""
        if line["phase"] == "round":
            self._each("on_round", lambda callback: callback.on_round(line))
        else:
            self._each("on_final", lambda callback: callback.on_final(line))

    def end(self, result: Result) -> None:
        """Passes on that the run has finished."""
        self._each("on_end", lambda callback: callback.on_end(result))

    def failure(self, error: BaseException) -> None:
        """Passes on that the run failed."""
        self._each("on_failure", lambda callback: callback.on_failure(error))

    def _each(self, method: str, call: Callable[[Callback], None]) -> None:
        for callback in list(self._callbacks):
            try:
                call(callback)
            except Exception:
                self._callbacks.remove(callback)
                shown = f"{type(callback).__name__}.{method} failed, and is not called again in this run"
                warnings.warn(f"{shown}; the run goes on\n{traceback.format_exc()}", RuntimeWarning, stacklevel=2)
