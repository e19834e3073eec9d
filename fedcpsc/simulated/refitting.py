# SPDX-License-Identifier: Apache-2.0
"""A refit as the command line and Python ask for it: from a run's folder to a new run's folder beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.images import ImageSet
from fedcpsc.data.sources import evaluation_images
from fedcpsc.distillation.progress import Progress
from fedcpsc.distillation.refit import refit
from fedcpsc.errors import DataError, RunError, explain
from fedcpsc.logs import configure_quietly
from fedcpsc.plain_yaml import quoted
from fedcpsc.runs.claim import Existing
from fedcpsc.runs.failure import note_failure
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.runs.result import RunResult
from fedcpsc.simulated.answerers import read_answerers
from fedcpsc.typed_yaml import parse_overrides

__all__ = ["held_out_images", "refit_config", "refit_run"]


def refit_config(source: Path, overrides: Sequence[str] = (), name: str | None = None) -> RunConfig:
    """The configuration of a refit: that of the run, with a name of its own, in the folder beside it.

    Args:
        source: folder of the run whose answers are fitted to.
        overrides: `a.b=c` items.
        name: name of the new run's folder; None for `output.name` of the overrides, or else `<run's name>-refit`.

    Raises:
        ConfigError: an override, or the run's configuration, is wrong.
        RunError: `source` is no run's folder.
    """
    if not (source / CONFIG_FILE).is_file():
        remedy = "give the folder that fedcpsc run left, for example runs/digits"
        raise RunError(explain("run", str(source), f"is not the folder of a run: it holds no {CONFIG_FILE}", remedy))
    given, items = parse_overrides(list(overrides)), list(overrides)
    if name is not None:
        items.append(f"output.name={quoted(name)}")
    elif "output.name" not in given:
        items.append(f"output.name={quoted(f'{source.resolve().name}-refit')}")
    beside = source.resolve().parent
    config = load_config(source / CONFIG_FILE, items)
    if "output.root" in given or Path(config.output.root).absolute() == beside:
        return config
    return load_config(source / CONFIG_FILE, [*items, f"output.root={quoted(str(beside))}"])


def refit_run(
    source: Path,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    existing: Existing = Existing.REFUSE,
    progress: Progress = lambda line: None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Path, RunResult]:
    """Fits a student to what a run has banked. No silo is asked anything, and the run's folder is only read.

    Args:
        source: folder of the run, finished or not.
        overrides: `a.b=c` items that concern the fit, see `distillation.refit`.
        name: name of the new run's folder; None for `<run's name>-refit`.
        existing: choice of what to do where that folder holds a run: refuse, or move it to `<name>.previous`.
        progress: function called with one line for each round and for each part of the final fit.
        tell: function called with one line for each event an operator should know.

    Returns:
        The new run's folder, and its result.

    Raises:
        FedcpscError: as `distillation.refit.refit`; or the folder is taken.
    """
    config = refit_config(source, overrides, name)
    run_dir = Path(config.output.root).absolute() / config.output.name
    if run_dir.resolve() == source.resolve():
        remedy = "give the refit a --name of its own"
        raise RunError(explain("output.name", config.output.name, "is the run whose answers are fitted to", remedy))
    configure_quietly(config.output.log_format)
    begun = (run_dir / CONFIG_FILE).exists()
    try:
        facts = read_answerers(Path(config.silos.root).absolute(), source, tell)
        evaluation = held_out_images(config, tell)
        result = refit(
            source,
            config,
            run_dir,
            existing=existing,
            evaluation=evaluation,
            silo_facts=facts,
            tell=tell,
            progress=progress,
        )
    except Exception as error:
        if not begun and (run_dir / CONFIG_FILE).exists():
            note_failure(run_dir, error)
        raise
    return run_dir, result


def held_out_images(config: RunConfig, tell: Callable[[str], None]) -> ImageSet | None:
    """The held-out images of the configuration's data; None, which is told, where they are not to be had here.

    Args:
        config: configuration of the refit.
        tell: function called with the reason.
    """
    try:
        return evaluation_images(config)
    except DataError as error:
        tell(f"nothing is measured on held-out images, which cannot be read here: {error}")
        return None
