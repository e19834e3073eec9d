# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc.distill`: one student from the answers of a federation of this process."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from torch import nn

from fedcpsc.api.arrays import Labelled, as_image_set
from fedcpsc.api.callbacks import Callback, RunStart, Told
from fedcpsc.api.federation import Federation
from fedcpsc.api.run import Run
from fedcpsc.api.settings import Settings, run_config
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.report.page import write_report
from fedcpsc.runs.claim import Existing, claim, finished
from fedcpsc.runs.layout import CONFIG_FILE, ERROR_FILE, LOCK_FILE, REPORT_FILE
from fedcpsc.simulated.one_process import attempt, run_over

__all__ = ["OnExisting", "StudentLike", "distill"]

OnExisting: TypeAlias = Literal["refuse", "resume", "overwrite"]
StudentLike: TypeAlias = "str | Mapping[str, object] | nn.Module"


def distill(
    federation: Federation,
    *,
    answers: int | None = None,
    rounds: int | None = None,
    student: StudentLike | None = None,
    held_out: Labelled | None = None,
    seed: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    existing: OnExisting = "refuse",
    config: Settings | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Asks the silos, fits a student to their answers, and leaves a run's folder with all that a run leaves.

    Nothing of the process is changed: torch's random streams and number of threads, logging and the models are as they
    were. Several runs may go on in threads of one process, also over one federation.

    Args:
        federation: silos, as `fedcpsc.simulate` returns them.
        answers: number of images that each silo is asked about, >= 1; None: the settings' own, else 5,000.
        rounds: number of rounds that they are spread over, >= 1; None: the settings' own, else 20.
        student: what is fitted: the name of an architecture; fields of the section `student`, as {"width": 16}; or a
            module of your own, float32 [B, C, H, W] with pixels in [-1, 1] -> logits [B, K], of which a copy is fitted
            from the weights that it has. None: the settings' own, else a convnet of width 32.
        held_out: real images uint8 [N, C, H, W] and their labels, to measure with; they never steer anything.
        seed: seed of everything random but privacy noise; None: the settings' own, else 1.
        folder: folder of the run; None makes a temporary one that goes with the returned object (`Run.save` keeps it).
        existing: what to do where the folder holds a run: "refuse"; "resume" goes on with it, and pays for nothing
            twice; "overwrite" moves it aside.
        config: further settings of a run: a mapping, as {"queries.form": "label"}, or a YAML file; arguments go first.
        callbacks: what to call while the run goes on, see `Callback`.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the held-out images are not as they must be.
        RunError: the folder holds something else, or the run failed.
        FederationError: no silo answered, or the silos do not fit together.
        SiloError: the federation is closed.
    """
    federation.check_open()
    evaluation = None
    if held_out is not None:
        sets = federation.label_sets
        evaluation = as_image_set(held_out, "held_out", sets.classes, sets.names, federation.image_shape)
    with _place(folder) as (where, remove):
        settings = run_config(
            config,
            silos=len(federation.members),
            silos_folder=None if federation.temporary else federation.folder,
            folder=where,
            held_out=evaluation is not None,
            answers=answers,
            rounds=rounds,
            student=None if isinstance(student, nn.Module) else student,
            seed=seed,
        )
        module = student if isinstance(student, nn.Module) else None
        resume = _claimed(where, existing)
        told = Told(callbacks)
        if not resume or finished(where, settings) is None:
            try:
                with attempt(where):
                    told.start(RunStart(where, settings, federation.names, resume))
                    run_over(
                        settings,
                        where,
                        [member.gatekeeper for member in federation.members],
                        resume=resume,
                        evaluation=evaluation,
                        silo_facts={member.manifest.silo: member.facts for member in federation.members},
                        on_line=told.line,
                        student=module,
                    )
            except BaseException as error:
                told.failure(error)
                raise
            draw_report(where)
        run = Run(where, federation, remove, module)
        told.end(run.result)
        return run


def draw_report(run_dir: Path) -> None:
    """Draws a finished run's page; whatever goes wrong is a warning: the run itself is done and paid for.

    Args:
        run_dir: folder of the run.
    """
    try:
        write_report(run_dir)
    except Exception as error:
        shown = f"{REPORT_FILE} could not be drawn ({type(error).__name__}: {error}); the run is complete"
        warnings.warn(f"{shown}; try again with run.report()", RuntimeWarning, stacklevel=3)


@contextmanager
def _place(folder: str | os.PathLike[str] | None) -> Iterator[tuple[Path, Path | None]]:
    """The run's folder, and what is removed with the run; of a run that fails, what was paid for stays.

    Raises:
        RunError: the folder holds something that is no run.
    """
    if folder is not None:
        where = Path(folder).absolute()
        left = {LOCK_FILE, ERROR_FILE}
        there = sorted(path.name for path in where.iterdir() if path.name not in left) if where.is_dir() else []
        if (there and CONFIG_FILE not in there) or where.is_file():
            shown = f"holds {', '.join(there[:3])}, and no run" if there else "is a file"
            raise RunError(explain("folder", str(where), shown, "name a new or empty folder"))
        yield where, None
        return
    base = Path(tempfile.mkdtemp(prefix="fedcpsc-run-"))
    where = base / "run"
    try:
        yield where, base
    except BaseException as error:
        if (where / CONFIG_FILE).exists():
            error.add_note(f"what was answered lies in {where}: distill(..., folder={str(where)!r}, existing='resume')")
        else:
            shutil.rmtree(base, ignore_errors=True)
        raise


def _claimed(where: Path, existing: str) -> bool:
    """Makes the folder ready; returns whether a run is resumed in it.

    Raises:
        ConfigError: `existing` is no such word.
        RunError: it holds a run that is to be left alone, or cannot be moved aside.
    """
    words = [choice.value for choice in Existing]
    if existing not in words:
        raise ConfigError(explain("existing", existing, "is unknown", f"say one of {', '.join(words)}"))
    if existing == "refuse" and (where / CONFIG_FILE).exists():
        remedy = "go on with existing='resume', start anew with existing='overwrite', or name another folder"
        raise RunError(explain("folder", str(where), "holds a run already", remedy))
    return claim(where, Existing(existing))
