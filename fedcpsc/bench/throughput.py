# SPDX-License-Identifier: Apache-2.0
"""Seconds and memory of each stage, both sides by turns in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fedcpsc.bench.children import Child
from fedcpsc.bench.results import CallTimes, Clock, Memory, Ratio, Ready, Spread, StageFigures, StageRow
from fedcpsc.bench.sides import STAGES, BenchPlan, Side, image_facts, unmeasurable

__all__ = ["Tell", "clock_of", "measure_stages", "over_bare", "spread"]

Tell = Callable[[float, str], None]  # share done in [0, 1], and of what


def measure_stages(plan: BenchPlan, sides: Sequence[Side], tell: Tell) -> tuple[list[StageRow], dict[str, Ready]]:
    """Measures each stage in processes of its own, one a side.

    Returns:
        One row a stage; and of each side, by name, what its process said of itself.

    Raises:
        FedcpscError: a side cannot be measured.
    """
    facts = {side.name: image_facts(side.load()) for side in sides}
    stages = plan.only or tuple(STAGES)
    rows: list[StageRow] = []
    said: dict[str, Ready] = {}
    for index, stage in enumerate(stages):
        with ExitStack() as stack:
            children: dict[str, Child] = {}
            for side in sides:
                classes, shape = facts[side.name]
                job = {"do": stage, "steps": plan.steps, "classes": classes, "image_shape": shape}
                children[side.name] = stack.enter_context(Child(side, job))
            tell(index / len(stages), STAGES[stage])
            for side in sides:
                said[side.name] = _ready(side, children[side.name])
            calls: dict[str, list[CallTimes]] = {side.name: [] for side in sides}
            for repeat in range(plan.repeats):
                for name in _turns(children, repeat):
                    calls[name].append(children[name].go())
                tell((index + (repeat + 1) / plan.repeats) / len(stages), STAGES[stage])
            memory = {name: child.finish() for name, child in children.items()}
        clock = clock_of(said)
        figures = {name: _figures(said[name], calls[name], clock, memory[name]) for name in children}
        row: StageRow = {"stage": stage, "what": STAGES[stage], "sides": figures}
        if len(sides) == 2:
            _compare(row, [said[side.name] for side in sides], [calls[side.name] for side in sides])
        rows.append(row)
    return rows, said


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most; values in their order, for whoever wants more."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "each": [float(f"{value:.4g}") for value in values],
    }


def _ready(side: Side, child: Child) -> Ready:
    """What the child says when set up.

    Raises:
        RunError: it took another package than the side's.
    """
    said = child.ready()
    if Path(said["ready"]) != (side.root / "fedcpsc").resolve():
        raise unmeasurable(side, f"{said['ready']} was imported instead of {side.root / 'fedcpsc'}")
    return said


def _turns(names: dict[str, Child], repeat: int) -> list[str]:
    """A B, B A, A B, ...: whatever else the machine does, also if it does so ever more, meets both alike."""
    return list(names) if repeat % 2 == 0 else list(reversed(names))


def clock_of(said: Mapping[str, Ready]) -> Clock:
    """Which clock the figures go by: with one thread on a CPU the process's own CPU seconds, else the wall's.

    What other programs take of a shared core is then not counted; several threads or a GPU have no such clock.
    """
    alone = all(side["device"] == "cpu" and side["threads"] == 1 for side in said.values())
    return "cpu_s" if alone else "wall_s"


def _figures(said: Ready, calls: list[CallTimes], clock: Clock, memory: Memory) -> StageFigures:
    times = {"wall_s": [call["wall_s"] for call in calls], "cpu_s": [call["cpu_s"] for call in calls]}
    wall, cpu = (spread([seconds / said["units"] for seconds in times[name]]) for name in ("wall_s", "cpu_s"))
    per_unit = said["images"] / said["units"]
    rate = per_unit / (wall if clock == "wall_s" else cpu)["median"]
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "images_per_second": rate,
        "images": per_unit,
        "over_bare": over_bare(calls),
        **memory,
    }


def over_bare(calls: Sequence[CallTimes]) -> Ratio | None:
    """Seconds of each call over those of the bare passes beside it; None where there are none.

    Args:
        calls: timed calls of one stage, at least one.
    """
    if any("bare_wall_s" not in call or "bare_cpu_s" not in call for call in calls):
        return None
    return {
        "wall_s": spread([call["wall_s"] / call["bare_wall_s"] for call in calls]),
        "cpu_s": spread([call["cpu_s"] / max(call["bare_cpu_s"], 1e-9) for call in calls]),
    }


def _compare(row: StageRow, said: Sequence[Ready], calls: Sequence[Sequence[CallTimes]]) -> None:
    """Adds seconds an image of the other side over those of this one, pair by pair."""
    work = said[0]["images"] / said[1]["images"]
    pairs = list(zip(*calls, strict=True))
    ratio: Ratio = {
        "wall_s": spread([work * other["wall_s"] / this["wall_s"] for this, other in pairs]),
        "cpu_s": spread([work * other["cpu_s"] / this["cpu_s"] for this, other in pairs]),
    }
    row["ratio"] = ratio
    row["same_outcome"] = said[0]["outcome"] == said[1]["outcome"]
