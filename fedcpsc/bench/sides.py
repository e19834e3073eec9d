# SPDX-License-Identifier: Apache-2.0
"""The one or two sides that are measured: a configuration and a source tree each."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fedcpsc
from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.silo_images import load_silo_train
from fedcpsc.data.sources import load_evaluation
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.provenance import commit

__all__ = ["STAGES", "BenchPlan", "Side", "check_sides", "differences", "image_facts", "opened_sides", "unmeasurable"]

STAGES = {
    "prior": "procedural images of a round",
    "generator": "generator step",
    "selection": "choice among a round's candidates",
    "student": "student step in a round",
    "committee": "step of every committee network",
    "final": "student step in the final fit",
    "evaluation": "student on held-out images",
    "answers": "silo's answers to a round's images",
    "round": "whole round but its answers",
}
_THIS, _OTHER = "this", "other"
_PACKAGES = ("fedcpsc", "clients", "server")  # a revision's own, all of them: its commands import one another's


@dataclass(frozen=True)
class BenchPlan:
    """What was asked for.

    Attributes:
        config: YAML file of a run.
        overrides: `a.b=c` items of both sides.
        against: YAML file of the other side; None takes the same.
        against_commit: revision of the other side; None takes the code at hand.
        overrides_against: further `a.b=c` items of the other side alone.
        steps: optimiser steps in one timed call, >= 1.
        repeats: timed calls of each stage and side, >= 1.
        curve: whether also to run the configurations, and report accuracy against answers.
        seeds: number of seeds of the curve, from the configured one on, >= 1.
        only: stages to measure, names in `STAGES`; empty for all.
    """

    config: Path
    overrides: tuple[str, ...] = ()
    against: Path | None = None
    against_commit: str | None = None
    overrides_against: tuple[str, ...] = ()
    steps: int = 20
    repeats: int = 5
    curve: bool = False
    seeds: int = 1
    only: tuple[str, ...] = ()

    def check(self) -> None:
        """Does nothing where the values fit.

        Raises:
            ConfigError: where one does not.
        """
        for name, value in (("--steps", self.steps), ("--repeats", self.repeats), ("--seeds", self.seeds)):
            if value < 1:
                raise ConfigError(explain(name, value, "must be >= 1", "give a positive number, or leave it out"))
        for stage in self.only:
            if stage not in STAGES:
                raise ConfigError(explain("--only", stage, f"must be one of {list(STAGES)}", "name one of them"))
        if self.against is not None and self.against_commit is not None:
            given = f"{self.against}, {self.against_commit}"
            remedy = "give one: with both, nobody could say which made the difference"
            raise ConfigError(explain("--against, --against-commit", given, "exclude each other", remedy))


@dataclass(frozen=True)
class Side:
    """One thing to measure.

    Attributes:
        name: "this" or "other".
        label: name of the side, shown to people.
        config: absolute path of the YAML file.
        overrides: `a.b=c` items.
        root: folder that holds the packages to measure.
        commit: commit of that source tree, with "-dirty" where it was changed since; None where it has none.
    """

    name: str
    label: str
    config: Path
    overrides: tuple[str, ...]
    root: Path
    commit: str | None

    def load(self) -> RunConfig:
        """The configuration, by the code at hand.

        Raises:
            ConfigError: as `load_config`.
        """
        return load_config(self.config, list(self.overrides))


@contextmanager
def opened_sides(plan: BenchPlan) -> Iterator[list[Side]]:
    """The sides, the code at hand first; another revision's source lies in a temporary folder meanwhile.

    Raises:
        ConfigError: there is no such revision, or no repository.
    """
    plan.check()
    root = Path(fedcpsc.__file__).resolve().parents[1]
    this = Side(_THIS, plan.config.name, plan.config.absolute(), plan.overrides, root, commit())
    overrides = (*plan.overrides, *plan.overrides_against)
    if plan.against_commit is not None:
        with tempfile.TemporaryDirectory(prefix="fedcpsc-revision-") as folder:
            found = _extract(plan.against_commit, root, Path(folder))
            label = f"{plan.config.name} at {found}"
            yield [this, Side(_OTHER, label, this.config, overrides, Path(folder), found)]
    elif plan.against is not None or plan.overrides_against:
        path = (plan.against or plan.config).absolute()
        label = " ".join((path.name, *plan.overrides_against))
        yield [this, Side(_OTHER, label, path, overrides, root, this.commit)]
    else:
        yield [this]


def _extract(revision: str, root: Path, folder: Path) -> str:
    """Writes the revision's tree into `folder`; returns its commit.

    Taken from the archive rather than from a worktree, which would leave its mark in the user's repository if this
    process were killed.
    """
    remedy = "give a commit, branch or tag that `git log` knows, and run from a clone"
    try:
        named = _git(
            root, "rev-parse", "--verify", "--quiet", "--short=12", "--end-of-options", f"{revision}^{{commit}}"
        )
        found = named.decode().strip()
        held = _git(root, "ls-tree", "-d", "--name-only", found).decode().split()
        packages = [name for name in _PACKAGES if name == _PACKAGES[0] or name in held]
        archive = _git(root, "archive", "--format=tar", found, *packages)
    except FileNotFoundError as error:
        raise ConfigError(explain("--against-commit", revision, "needs git", "install git")) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        why = f"names no revision of fedcpsc in {root}" + (f" ({said.splitlines()[-1]})" if said else "")
        raise ConfigError(explain("--against-commit", revision, why, remedy)) from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return found


def _git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, check=True, timeout=60)
    return done.stdout


def check_sides(plan: BenchPlan, sides: Sequence[Side]) -> None:
    """Finds faults of the configurations before minutes are spent on measuring.

    Raises:
        ConfigError: one is wrong, or has nothing to draw a curve of.
    """
    for side in sides:
        if not side.load().evaluation.held_out and plan.curve:
            remedy = "set it to true, or leave --curve out"
            raise ConfigError(explain("evaluation.held_out", False, f"{side.label} has no accuracy to draw", remedy))


def image_facts(config: RunConfig) -> tuple[int, tuple[int, int, int]]:
    """K and (C, H, W) of the configured data, from as few images as suffice.

    Raises:
        ConfigError, DataError: where the source cannot be read as configured.
    """
    data = config.data.model_copy(update={"test_limit": 1, "train_limit": 1, "validation": 0})
    images = load_evaluation(data, config.seed)
    if images is None:  # every silo has files of its own
        images = load_silo_train(config.model_copy(update={"data": data}), 0)
    return images.classes, images.image_shape


def differences(this: dict[str, Any], other: dict[str, Any], top: str = "") -> dict[str, list[Any]]:
    """Dotted keys whose values differ, as {key: [this, other]}; a key that one lacks counts as None."""
    found: dict[str, list[Any]] = {}
    for key in sorted(this.keys() | other.keys()):
        a, b, path = this.get(key), other.get(key), f"{top}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{path}.")
        elif a != b:
            found[path] = [a, b]
    return found


def unmeasurable(side: Side, why: str) -> RunError:
    """The error for a side that the measuring script could not drive."""
    if side.name == _THIS or side.root == Path(fedcpsc.__file__).resolve().parents[1]:
        return RunError(explain("side", side.label, f"could not be measured: {why}", "fix the configuration"))
    remedy = "measure a later commit: the script calls the steps, synthesis and selection as they are called today"
    return RunError(explain("--against-commit", side.commit, f"could not be measured: {why}", remedy))
