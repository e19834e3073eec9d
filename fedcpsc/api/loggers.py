# SPDX-License-Identifier: Apache-2.0
"""Callbacks that keep a run's figures where other tools look: TensorBoard, MLflow, Weights & Biases.

Each writes into the run's folder and asks no server for anything, unless its caller names one. They write figures and
settings: no image, no answer, no weights; TensorBoard, whose files stay in the folder, also shows query images.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from types import ModuleType
from typing import Any

from fedcpsc.api.callbacks import Callback, RunStart
from fedcpsc.api.result import Result
from fedcpsc.config import RunConfig
from fedcpsc.distillation.events import EventLog, check_tensorboard, scalars, step_of
from fedcpsc.errors import ConfigError, explain
from fedcpsc.runs.bank_view import find_bank
from fedcpsc.runs.layout import TENSORBOARD_FOLDER
from fedcpsc.runs.metrics import MetricsLine

__all__ = ["MlflowLogger", "TensorBoardLogger", "WandbLogger"]


class TensorBoardLogger(Callback):
    """Event files for TensorBoard in the run's folder, as `output.tensorboard: true` writes them.

    Raises:
        ConfigError: where tensorboard is not installed.
    """

    def __init__(self) -> None:
        check_tensorboard("TensorBoardLogger", "leave the callback out")
        self._start: RunStart | None = None
        self._events: EventLog | None = None

    def on_start(self, start: RunStart) -> None:
        """Notes where the events go; the file is made with the first line."""
        if start.config.output.tensorboard:
            shown = "writes the same events already"
            raise ConfigError(explain("output.tensorboard", True, shown, "leave either out"))
        self._start = start
        self._events = EventLog(start.folder / TENSORBOARD_FOLDER, resumed=start.resumed)

    def on_round(self, line: MetricsLine) -> None:
        """Writes a round's figures and query images."""
        self._line(line)

    def on_final(self, line: MetricsLine) -> None:
        """Writes the figures of a part of the final fit."""
        self._line(line)

    def on_end(self, result: Result) -> None:
        """Ends the file."""
        self._close()

    def on_failure(self, error: BaseException) -> None:
        """Ends the file."""
        self._close()

    def _line(self, line: MetricsLine) -> None:
        if self._events is None or self._start is None:
            return
        bank = find_bank(self._start.folder, self._start.config.aggregation.exclude)
        if bank is not None:
            self._events.line(line, bank)

    def _close(self) -> None:
        if self._events is not None:
            self._events.close()


class MlflowLogger(Callback):
    """A run of MLflow: settings as parameters, figures by round and the result's as metrics.

    Without a tracking address it is written into the run's folder, and nothing leaves this machine: MLflow's own
    telemetry is switched off then. `mlflow ui --backend-store-uri sqlite:///<run>/mlflow/mlflow.db` shows it. A run
    that is resumed goes on with its run of MLflow.

    Args:
        tracking_uri: address of an MLflow server or store; None: a SQLite file in the run's folder.
        experiment: name of the experiment, made where it is missing.

    Raises:
        ConfigError: where mlflow is not installed.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "fedcpsc") -> None:
        if tracking_uri is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported: it would call home
        self._mlflow = _extra("mlflow")
        self._uri, self._experiment = tracking_uri, experiment
        self._client: Any = None
        self._run_id = ""
        self._final_lines = 0

    def on_start(self, start: RunStart) -> None:
        """Begins the run of MLflow, or goes on with the one of a run that is resumed."""
        self._final_lines, self._run_id = 0, ""
        uri, artifacts = self._uri, None
        if uri is None:
            folder = start.folder / "mlflow"
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = (
            self._client.create_experiment(self._experiment, artifact_location=artifacts)
            if experiment is None
            else experiment.experiment_id
        )
        tags = {"fedcpsc.run": str(start.folder)}
        if start.resumed:
            known = self._client.search_runs([number], f"tags.`fedcpsc.run` = '{start.folder}'", max_results=1)
            if known:
                self._run_id = known[0].info.run_id
                self._client.update_run(self._run_id, status="RUNNING")
                return
        self._run_id = self._client.create_run(number, tags=tags, run_name=start.name).info.run_id
        for key, value in public_settings(start.config).items():
            self._client.log_param(self._run_id, key, value)

    def on_round(self, line: MetricsLine) -> None:
        """Writes a round's figures."""
        self._line(line)

    def on_final(self, line: MetricsLine) -> None:
        """Writes the figures of a part of the final fit."""
        self._final_lines += 1
        self._line(line)

    def on_end(self, result: Result) -> None:
        """Writes the result's figures, and ends the run of MLflow."""
        for name, value in result_figures(result).items():
            self._client.log_metric(self._run_id, f"result/{name}", value)
        self._client.set_terminated(self._run_id, status="FINISHED")

    def on_failure(self, error: BaseException) -> None:
        """Ends the run of MLflow as failed."""
        if self._run_id:
            self._client.set_terminated(self._run_id, status="FAILED")

    def _line(self, line: MetricsLine) -> None:
        now, step = int(time.time() * 1000), step_of(line, self._final_lines)
        metrics = [self._mlflow.entities.Metric(name, value, now, step) for name, value in scalars(line).items()]
        self._client.log_batch(self._run_id, metrics=metrics)


class WandbLogger(Callback):
    """A run of Weights & Biases: settings, figures by round, and the result's figures as its summary.

    By default it is offline: the files lie in `wandb/` of the run's folder, and `wandb sync` sends them. A run that is
    resumed begins another one of the same group.

    Args:
        project: name of the project.
        mode: "offline"; or "online", which sends settings and figures to the server that wandb is logged in to.

    Raises:
        ConfigError: where wandb is not installed, or the mode is unknown.
    """

    def __init__(self, project: str = "fedcpsc", mode: str = "offline") -> None:
        if mode not in ("offline", "online"):
            raise ConfigError(explain("mode", mode, "is unknown", "say offline or online"))
        self._wandb = _extra("wandb")
        self._project, self._mode = project, mode
        self._run: Any = None
        self._final_lines = 0

    def on_start(self, start: RunStart) -> None:
        """Begins the run of Weights & Biases, beside any other of this process."""
        self._final_lines = 0
        self._run = self._wandb.init(
            project=self._project,
            name=start.name,
            group=start.name,
            dir=str(start.folder),
            mode=self._mode,
            config=public_settings(start.config),
            reinit="create_new",
            settings=self._wandb.Settings(console="off", save_code=False, disable_git=True, silent=True),
        )

    def on_round(self, line: MetricsLine) -> None:
        """Writes a round's figures."""
        self._run.log(scalars(line), step=step_of(line, 0))

    def on_final(self, line: MetricsLine) -> None:
        """Writes the figures of a part of the final fit."""
        self._final_lines += 1
        self._run.log(scalars(line), step=step_of(line, self._final_lines))

    def on_end(self, result: Result) -> None:
        """Writes the result's figures, and ends the run of Weights & Biases."""
        self._run.summary.update({f"result/{name}": value for name, value in result_figures(result).items()})
        self._run.finish()

    def on_failure(self, error: BaseException) -> None:
        """Ends the run of Weights & Biases as failed."""
        if self._run is not None:
            self._run.finish(exit_code=1)


def public_settings(config: RunConfig) -> dict[str, str]:
    """The configuration's values as text by dotted key, without the paths of this machine.

    Args:
        config: configuration of the run.
    """
    tree = config.model_dump(mode="json", exclude={"data": {"path"}, "silos": {"root"}, "output": {"root"}})
    found = {"seed": str(tree.pop("seed"))}
    for section, fields in tree.items():
        found |= {f"{section}.{key}": str(value) for key, value in fields.items()}
    return found


def result_figures(result: Result) -> dict[str, float]:
    """The numbers of a result by name; what was not measured is left out.

    Args:
        result: result of the run.
    """
    figures: dict[str, float | None] = {
        "student_accuracy": result.student.accuracy,
        "ensemble_accuracy": result.ensemble.accuracy,
        "best_teacher_accuracy": result.best_teacher,
        "answers_per_silo": result.answers_per_silo,
        "seconds": result.seconds,
    }
    figures |= {f"epsilon/{silo.id}": silo.epsilon for silo in result.silos if silo.dp}
    return {name: float(value) for name, value in figures.items() if value is not None}


def _extra(name: str) -> ModuleType:
    """An optional package.

    Raises:
        ConfigError: where it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        remedy = f"pip install 'fedcpsc[{name}]', or leave the callback out"
        raise ConfigError(explain("callbacks", name, "the package is not installed", remedy)) from error
