# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc run --from` looks at before it trains a teacher or starts a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedcpsc.commands.literal import literal
from fedcpsc.config import RunConfig
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.plain_yaml import quoted
from fedcpsc.runs.inherited import check_continuation, inheriting
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.typed_yaml import parse_overrides

__all__ = ["check_start", "starting_from"]


def starting_from(
    source: Path, config: Path | None, overrides: Sequence[str], *, named: bool
) -> tuple[Path, tuple[str, ...]]:
    """File and overrides of a run that begins with another one's answers.

    Args:
        source: folder of the run whose answers it begins with.
        config: YAML file of the new run; None takes the configuration of `source`.
        overrides: `a.b=c` items.
        named: whether the new run has a name of its own already.

    Raises:
        RunError: `source` is no run's folder.
        ConfigError: the new run would have the old one's name, or begins with two runs.
    """
    if not (source / CONFIG_FILE).is_file():
        remedy = "give the folder that fedcpsc run left, for example runs/digits"
        raise RunError(explain("--from", str(source), f"is not the folder of a run: it holds no {CONFIG_FILE}", remedy))
    given = parse_overrides(list(overrides))
    if "queries.start_from" in given:
        raise ConfigError(explain("--from", str(source), "is set by queries.start_from too", "give one of them"))
    if config is None and not named and "output.name" not in given:
        remedy = "give the new run a --name of its own"
        raise ConfigError(explain("--from", str(source), "would give the new run the name of the old one", remedy))
    path = f"queries.start_from={quoted(str(source.absolute()))}"
    return config or source / CONFIG_FILE, (*overrides, path)


def check_start(config: RunConfig, run_dir: Path, console: Console) -> None:
    """Shows what the run begins with; does nothing where it begins with nothing.

    Args:
        config: configuration of the run.
        run_dir: folder of the run.
        console: console to write to.

    Raises:
        RunError, BankError, ConfigError: it cannot begin with these answers; nothing was made or moved yet.
    """
    if config.queries.start_from is None:
        return

    def say(line: str) -> None:
        console.print(literal(line), highlight=False, soft_wrap=True)

    with inheriting(Path(config.queries.start_from), run_dir, say) as inherited:
        check_continuation(inherited, config)
        _check_same_parts(inherited.config, config)
        say(inherited.in_words())


def _check_same_parts(before: RunConfig, now: RunConfig) -> None:
    """Refuses to deal the images of simulated silos anew in another number of parts: each would get another teacher."""
    from fedcpsc.silos.adopted import adopted_silos  # noqa: PLC0415 - brings torch

    here = before.silos.root == now.silos.root
    if not here or before.silos.parts == now.silos.parts or now.silos.partition.kind == "own_files":
        return
    asked = range(before.silos.count)
    if len(adopted_silos(Path(now.silos.root).absolute(), asked)) == len(asked):
        return
    constraint = (
        f"deals the images in {now.silos.parts} parts, which were dealt in {before.silos.parts}: every simulated silo "
        "would get another teacher, and be charged for all images again"
    )
    remedy = (
        f"deal them in {now.silos.parts} parts from the first run on (silos.partition.parts), give each silo its own "
        "files, or make other silos by another silos.root"
    )
    raise ConfigError(explain("silos.count", now.silos.count, constraint, remedy))
