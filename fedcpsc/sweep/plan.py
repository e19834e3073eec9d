# SPDX-License-Identifier: Apache-2.0
"""A sweep's plan: one configuration, settings that differ from it, and seeds. Typed, strict; torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from fedcpsc.errors import explain
from fedcpsc.plain_yaml import quoted
from fedcpsc.typed_yaml import Strict, load_as

__all__ = ["LONGEST_NAME", "SweepPlan", "load_plan"]

LONGEST_NAME: Final = 100
"""Characters of a setting's name."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")]

_OWN: Final = ("output.name", "output.root", "silos.root")  # each run's own, which the sweep chooses


def _dotted(key: str) -> str:
    if key == "seed" or key in _OWN:
        remedy = "name seeds in the plan's seeds" if key == "seed" else "leave it out: each run gets its own"
        raise ValueError(explain("key", key, "is the sweep's to set", remedy))
    if "." not in key or not all(key.split(".")):
        constraint = "must be a section and a key in it, with a dot between"
        raise ValueError(explain("key", key, constraint, "write aggregation.rule: entropy, a line for each key"))
    return key


Key = Annotated[str, AfterValidator(_dotted)]


class SweepPlan(Strict):
    """Settings x seeds over one configuration: each pair is one run, with a folder and a result of its own."""

    config: str = Field(
        description="YAML file of the run that the settings differ from, relative to the working directory"
    )
    name: Name | None = Field(
        None, description="name of the sweep's folder; null: that of the plan's file without its ending"
    )
    root: str = Field("sweeps", description="folder of sweeps' folders, relative to the working directory")
    set: tuple[str, ...] = Field(
        (), description="overrides KEY=VALUE of every run, as --set of fedcpsc run; a setting's own value comes after"
    )
    seeds: tuple[Seed, ...] = Field((1, 2, 3), description="seeds of every setting's runs, each once")
    answers: Literal["own", "shared"] = Field(
        "own",
        description="own: each run asks its silos for itself; shared: for each seed one run of the configuration as it is asks, and every setting is fitted to that run's answers, which cost nothing more but were chosen for another student",
    )
    settings: dict[str, dict[Key, Any]] = Field(
        default_factory=dict,
        description="settings by name, each as values by dotted key, as {entropy: {aggregation.rule: entropy}}; {} is the configuration as it is",
    )
    grid: dict[Key, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="values to try by dotted key, all combinations of them, with each of the settings where there are any",
    )

    @field_validator("set")
    @classmethod
    def _overrides_are_of_runs(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        for item in items:
            _dotted(item.partition("=")[0].strip())
        return items

    @field_validator("seeds")
    @classmethod
    def _seeds_are_given_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(explain("seeds", list(seeds), "must be at least one, each once", "fix the list"))
        return seeds

    @field_validator("settings")
    @classmethod
    def _names_are_told_apart(cls, settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        seen: dict[str, str] = {}
        for name in settings:
            if not name.isprintable() or name != name.strip() or not 0 < len(name) <= LONGEST_NAME:
                constraint = f"must be 1 to {LONGEST_NAME} printable characters without space at the ends"
                raise ValueError(explain("settings", name, constraint, "rename the setting"))
            if (other := seen.setdefault(name.casefold(), name)) != name:
                constraint = f"differs from {other!r} by capitals alone, and some disks keep one folder for both"
                raise ValueError(explain("settings", name, constraint, "rename one of them"))
        return settings

    @field_validator("grid")
    @classmethod
    def _values_differ(cls, grid: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key, values in grid.items():
            if not values or any(value in values[:place] for place, value in enumerate(values)):
                raise ValueError(explain(f"grid.{key}", list(values), "must be at least one, each once", "fix it"))
        return grid


def load_plan(path: Path) -> SweepPlan:
    """Reads a plan; where it gives no name, it has that of its file.

    Args:
        path: YAML file of the plan.

    Raises:
        ConfigError: naming the key or value, the constraint and the remedy.
    """
    plan = load_as(SweepPlan, path)
    if plan.name is not None:
        return plan
    return load_as(SweepPlan, path, [f"name={quoted(path.stem)}"])
