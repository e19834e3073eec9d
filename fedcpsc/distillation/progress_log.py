# SPDX-License-Identifier: Apache-2.0
"""Where a run's lines of progress go: metrics.jsonl, the server's log, and TensorBoard's events where wished for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.distillation.events import EventLog
from fedcpsc.distillation.progress import Progress
from fedcpsc.files import drop_half_a_line, explained_writes
from fedcpsc.logs import fields
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.layout import METRICS_FILE, RESULT_FILE, TENSORBOARD_FOLDER
from fedcpsc.runs.metrics import MetricsLine, append_line

__all__ = ["progress_log"]

log = logging.getLogger("fedcpsc.server")

_LOGGED = ("round", "bank", "entropy", "waiting_s", "seconds")


@contextmanager
def progress_log(
    run_dir: Path, config: RunConfig, bank: AnswerBank, *, resumed: bool, then: Progress = lambda line: None
) -> Iterator[Progress]:
    """A function that takes each line of progress. A finished run is one no more: its result goes.

    Args:
        run_dir: folder of the run.
        config: configuration of the run.
        bank: answer bank of the run.
        resumed: whether earlier lines are kept, but for half a line that a crash left.
        then: function called with each line once it is written.

    Raises:
        RunError: a file cannot be written.
    """
    metrics = run_dir / METRICS_FILE
    with explained_writes(metrics):
        (run_dir / RESULT_FILE).unlink(missing_ok=True)
        if resumed:
            drop_half_a_line(metrics)
        else:
            metrics.write_text("")
    events = EventLog(run_dir / TENSORBOARD_FOLDER, resumed=resumed) if config.output.tensorboard else None

    def progress(line: MetricsLine) -> None:
        with explained_writes(metrics):
            append_line(metrics, line)
        kept = {name: value for name, value in line.items() if name in _LOGGED}
        sentence = "a round is done" if line["phase"] == "round" else "a part of the final fit is done"
        log.info(sentence, extra=fields(run=config.output.name, **kept))
        if events is not None:
            events.line(line, bank)
        then(line)

    try:
        yield progress
    finally:
        if events is not None:
            events.close()
