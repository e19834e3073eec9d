"""Seconds and memory of each stage, both sides by turns in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fedcpsc.bench.children import Child
from fedcpsc.bench.sides import STAGES, BenchPlan, Side, image_facts, unmeasurable

__all__ = ["Tell", "clock_of", "measure_stages", "spread"]

Tell = Callable[[float, str], None]  # share done in [0, 1], and of what

CLOCKS = ("wall_s", "cpu_s")


def measure_stages(
    plan: BenchPlan, sides: Sequence[Side], tell: Tell
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Measures each stage in processes of its own, one a side.

    Returns:
        One row a stage; and of each side, by name, what its process said of itself.

    Raises:
        FedcpscError: a side cannot be measured.
    """
    facts = {side.name: image_facts(side.load()) for side in sides}
    stages = plan.only or tuple(STAGES)
    rows, said = [], {}
    for index, stage in enumerate(stages):
        with ExitStack() as stack:
            children = {}
            for side in sides:
                classes, shape = facts[side.name]
                job = {"do": stage, "steps": plan.steps, "classes": classes, "image_shape": shape}
                children[side.name] = stack.enter_context(Child(side, job))
            tell(index / len(stages), STAGES[stage])
            for side in sides:
                said[side.name] = _ready(side, children[side.name])
            calls: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
            for repeat in range(plan.repeats):
                for name in _turns(children, repeat):
                    calls[name].append(children[name].go())
                tell((index + (repeat + 1) / plan.repeats) / len(stages), STAGES[stage])
            memory = {name: child.finish() for name, child in children.items()}
        clock = clock_of(said)
        figures = {name: _figures(said[name], calls[name], clock) | memory[name] for name in children}
        rows.append({"stage": stage, "what": STAGES[stage], "sides": figures, **_compared(said, calls)})
    return rows, said


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and most; values in their order, for whoever wants more."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "each": [float(f"{value:.4g}") for value in values],
    }


def _ready(side: Side, child: Child) -> dict[str, Any]:
    """What the child says when set up.

    Raises:
        RunError: it took another package than the side's.
    """
    said = child.read()
    if Path(said["ready"]) != (side.root / "fedcpsc").resolve():
        raise unmeasurable(side, f"{said['ready']} was imported instead of {side.root / 'fedcpsc'}")
    return said


def _turns(names: dict[str, Child], repeat: int) -> list[str]:
    """A B, B A, A B, ...: whatever else the machine does, also if it does so ever more, meets both alike."""
    return list(names) if repeat % 2 == 0 else list(reversed(names))


def clock_of(said: dict[str, dict[str, Any]]) -> str:
    """Which clock the figures go by: with one thread on a CPU the process's own CPU seconds, else the wall's.

    What other programs take of a shared core is then not counted; several threads or a GPU have no such clock.
    """
    alone = all(side["device"] == "cpu" and side["threads"] == 1 for side in said.values())
    return "cpu_s" if alone else "wall_s"


def _figures(said: dict[str, Any], calls: list[dict[str, float]], clock: str) -> dict[str, Any]:
    times = {name: spread([call[name] / said["units"] for call in calls]) for name in CLOCKS}
    per_unit = said["images"] / said["units"]
    return {**times, "images_per_second": per_unit / times[clock]["median"], "images": per_unit}


def _compared(said: dict[str, dict[str, Any]], calls: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Seconds an image of the other side over those of this one, pair by pair."""
    if len(calls) < 2:
        return {}
    this, other = calls
    work = said[this]["images"] / said[other]["images"]
    ratio = {
        clock: spread([work * b[clock] / a[clock] for a, b in zip(calls[this], calls[other], strict=True)])
        for clock in CLOCKS
    }
    return {"ratio": ratio, "same_outcome": said[this]["outcome"] == said[other]["outcome"]}
