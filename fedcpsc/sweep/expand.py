# SPDX-License-Identifier: Apache-2.0
"""A plan -> its settings and runs, each with a whole configuration; whatever is wrong is found before anything runs."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import ConfigError, explain
from fedcpsc.plain_yaml import quoted
from fedcpsc.runs.inherited import check_changes_of_refit
from fedcpsc.sweep.layout import RUNS_FOLDER, SILOS_FOLDER, run_name
from fedcpsc.sweep.plan import SweepPlan
from fedcpsc.sweep.words import as_override, shown_value
from fedcpsc.typed_yaml import parse_overrides

__all__ = ["AS_CONFIGURED", "MOST_RUNS", "PlannedRun", "Setting", "Sweep", "expand", "value_at"]

MOST_RUNS: Final = 100
"""Runs of a sweep, unless more are allowed by number."""

AS_CONFIGURED: Final = "as configured"
"""Name of the only setting of a plan that names none, and of the runs that ask for answers that settings share."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: name of the setting, unique in the plan.
        changes: values by dotted key, in the order in which they are applied.
        values: value of each varied key in the setting's configuration; None where a free mapping lacks the key.
    """

    name: str
    changes: Mapping[str, object]
    values: Mapping[str, object]

    @property
    def overrides(self) -> list[str]:
        """The changes as `--set` of `fedcpsc run` takes them."""
        return [as_override(key, value) for key, value in self.changes.items()]


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        setting: setting of the run.
        config: configuration of the run.
        folder: folder of the run.
        silos: folder of the run's silos' folders; where it shares answers, of the silos that gave them.
    """

    setting: Setting
    config: RunConfig
    folder: Path
    silos: Path

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.name

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.seed


@dataclass(frozen=True)
class Sweep:
    """A plan with all that follows from it.

    Attributes:
        plan: the plan.
        overrides: overrides of every run that were given beside the plan.
        folder: folder of the sweep.
        base: configuration that the settings differ from.
        varied: dotted keys that settings vary.
        settings: settings, in the plan's order.
        runs: runs, seed by seed, in the settings' order.
        banks: with `answers: shared`, for each seed the run whose answers its settings share; else empty.
    """

    plan: SweepPlan
    overrides: tuple[str, ...]
    folder: Path
    base: RunConfig
    varied: tuple[str, ...]
    settings: tuple[Setting, ...]
    runs: tuple[PlannedRun, ...]
    banks: tuple[PlannedRun, ...]

    @property
    def name(self) -> str:
        """Name of the sweep, as people see it."""
        return self.plan.name or self.folder.name

    @property
    def everything(self) -> list[PlannedRun]:
        """All runs, seed by seed, those that others share answers of before these."""
        return [run for seed in self.plan.seeds for run in (*self.banks, *self.runs) if run.seed == seed]

    def bank_of(self, run: PlannedRun) -> PlannedRun | None:
        """The run whose answers `run` is fitted to; None where it asks for itself."""
        return next((bank for bank in self.banks if bank.seed == run.seed and bank is not run), None)


def expand(plan: SweepPlan, folder: Path, overrides: Sequence[str] = (), most_runs: int | None = None) -> Sweep:
    """All settings and runs of a plan.

    Args:
        plan: the plan; its configuration is read from the working directory.
        folder: folder of the sweep.
        overrides: overrides KEY=VALUE of every run, after those of the plan.
        most_runs: largest number of runs; None is `MOST_RUNS`.

    Raises:
        ConfigError: too many runs; a key or value that no run may have, with the setting's name; a key that two parts
            of the plan vary; two settings that come to the same.
    """
    _check_count(plan, most_runs)
    varied = tuple(dict.fromkeys([key for changes in plan.settings.values() for key in changes] + list(plan.grid)))
    common = [*plan.set, *overrides]
    _check_keys(plan, varied, list(parse_overrides(list(overrides))))
    base = _load(plan, common, "the plan's configuration")
    settings, trees = [], {}
    for name, changes in _named(plan):
        setting = Setting(name, changes, {})
        tree = _load(plan, [*common, *setting.overrides], f"setting {name!r}").model_dump(mode="json")
        settings.append(Setting(name, changes, {key: value_at(tree, key) for key in varied}))
        trees[name] = tree
    _check_names([setting.name for setting in settings])
    _check_different(trees)
    sources: list[Setting] = []
    if plan.answers == "shared":
        _check_refitted(plan, common, base, settings)
        tree = base.model_dump(mode="json")
        sources = [Setting(AS_CONFIGURED, {}, {key: value_at(tree, key) for key in varied})]
    banks = tuple(_planned(plan, folder, common, setting, seed) for setting in sources for seed in plan.seeds)
    silos = {bank.seed: bank.silos for bank in banks}
    runs = tuple(
        _planned(plan, folder, common, setting, seed, silos.get(seed)) for seed in plan.seeds for setting in settings
    )
    return Sweep(
        plan=plan,
        overrides=tuple(overrides),
        folder=folder,
        base=base,
        varied=varied,
        settings=tuple(settings),
        runs=runs,
        banks=banks,
    )


def value_at(tree: Mapping[str, object], key: str) -> object:
    """The value at a dotted key of a configuration's tree; None where a mapping on the way lacks it."""
    found: object = tree
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _check_count(plan: SweepPlan, most_runs: int | None) -> None:
    settings = max(1, len(plan.settings)) * math.prod(len(values) for values in plan.grid.values())
    count, most = settings * len(plan.seeds), MOST_RUNS if most_runs is None else most_runs
    if count > most:
        constraint = f"{settings:,} settings x {len(plan.seeds)} seeds are more than {most:,}"
        raise ConfigError(explain("runs", count, constraint, f"plan fewer, or allow them: --max-runs {count}"))


def _named(plan: SweepPlan) -> Iterator[tuple[str, dict[str, object]]]:
    """Name and changes of each setting, with each point of the grid."""
    named = plan.settings or {"": {}}
    last = [key.rpartition(".")[2] for key in plan.grid]
    short = {key: end if last.count(end) == 1 else key for key, end in zip(plan.grid, last, strict=True)}
    for name, changes in named.items():
        for values in itertools.product(*plan.grid.values()):
            point = dict(zip(plan.grid, values, strict=True))
            words = [name] if name else []
            words += [f"{short[key]}={shown_value(value)}" for key, value in point.items()]
            yield ", ".join(words) or AS_CONFIGURED, {**point, **changes}


def _check_keys(plan: SweepPlan, varied: Sequence[str], given: Sequence[str]) -> None:
    """No key is set by two parts of which one would silently win."""
    for key in plan.grid:
        for name, changes in plan.settings.items():
            if clash := next((other for other in changes if _overlap(key, other)), None):
                remedy = "vary it in one of the two"
                raise ConfigError(explain("grid", key, f"setting {name!r} sets {clash} as well", remedy))
    for key in given:
        if clash := next((other for other in varied if _overlap(key, other)), None):
            constraint = f"the plan varies {clash}, and its settings would win"
            raise ConfigError(explain("--set", key, constraint, "leave it out, or change the plan"))


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _check_names(names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ConfigError(explain("settings", name, "two settings have this name", "rename one of them"))


def _check_different(trees: Mapping[str, Mapping[str, object]]) -> None:
    seen: dict[str, str] = {}
    for name, tree in trees.items():
        key = json.dumps(tree, sort_keys=True)
        if (other := seen.setdefault(key, name)) != name:
            constraint = f"comes to the same configuration as {other!r}"
            raise ConfigError(explain("settings", name, constraint, "leave one of them out"))


def _check_refitted(plan: SweepPlan, common: Sequence[str], base: RunConfig, settings: Sequence[Setting]) -> None:
    """Settings that share answers change what concerns the fit alone."""
    for setting in settings:
        if setting.name == AS_CONFIGURED:
            remedy = "give the setting another name"
            raise ConfigError(explain("settings", setting.name, "is the name of the runs that ask", remedy))
        try:
            check_changes_of_refit(base, _load(plan, [*common, *setting.overrides], "the setting"))
        except ConfigError as error:
            raise ConfigError(f"setting {setting.name!r} cannot share answers: {error}") from error


def _load(plan: SweepPlan, overrides: Sequence[str], what: str) -> RunConfig:
    try:
        config = load_config(plan.config, list(overrides))
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error
    if (start := config.queries.start_from) is not None:
        constraint = "holds answers of other silos than a sweep's runs have"
        remedy = "leave it out, or let settings share one run's answers: answers: shared"
        raise ConfigError(f"{what}: {explain('queries.start_from', start, constraint, remedy)}")
    return config


def _planned(
    plan: SweepPlan, folder: Path, common: Sequence[str], setting: Setting, seed: int, silos: Path | None = None
) -> PlannedRun:
    """A run over silos of its own, or over `silos`, which the run whose answers it shares has asked."""
    name = run_name(setting.name, seed)
    silos = silos or folder / SILOS_FOLDER / name
    own = [
        f"seed={seed}",
        f"output.root={quoted(str(folder / RUNS_FOLDER))}",
        f"output.name={quoted(name)}",
        f"silos.root={quoted(str(silos))}",
    ]
    config = _load(plan, [*common, *setting.overrides, *own], f"setting {setting.name!r}")
    return PlannedRun(setting, _with_absolute_data(config), folder / RUNS_FOLDER / name, silos)


def _with_absolute_data(config: RunConfig) -> RunConfig:
    """As `fedcpsc run` has it: the run's own file then says where the data lay, wherever it is read."""
    path = config.data.path
    if not path:
        return config
    data = config.data.model_copy(update={"path": str(Path(path).absolute())})
    return config.model_copy(update={"data": data})
