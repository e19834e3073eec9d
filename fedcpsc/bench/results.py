# SPDX-License-Identifier: Apache-2.0
"""What bench.json holds, and what the measuring process replies, as types."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "BenchResult",
    "CallTimes",
    "Clock",
    "Curve",
    "CurveEnding",
    "CurvePoint",
    "CurveRun",
    "Memory",
    "Ratio",
    "Ready",
    "SideFacts",
    "Spread",
    "StageFigures",
    "StageRow",
]

Clock: TypeAlias = Literal["wall_s", "cpu_s"]


class Ready(TypedDict):
    """First reply of the measuring process, when a stage is set up.

    Attributes:
        ready: folder of the package that it imported.
        values: configuration of the run, by section.
        outcome: first digits of a hash of what the stage computed.
        units: number of steps or rounds in one call.
        images: number of images that pass through one call.
        device: device that the stage runs on.
        threads: number of CPU threads.
    """

    ready: str
    values: dict[str, Any]
    outcome: str
    units: int
    images: int
    device: str
    threads: int


class CallTimes(TypedDict):
    """Seconds of one timed call: of the wall's clock, and of the process's CPU.

    Attributes:
        wall_s, cpu_s: seconds of the call.
        bare_wall_s, bare_cpu_s: seconds of the bare passes of the same networks; left out where the stage has none.
    """

    wall_s: float
    cpu_s: float
    bare_wall_s: NotRequired[float]
    bare_cpu_s: NotRequired[float]


class Memory(TypedDict):
    """Memory of the measuring process in MiB: at most, before the stage, and at most on the GPU (None without one)."""

    peak_MiB: float
    at_rest_MiB: float
    gpu_peak_MiB: float | None


class CurveEnding(TypedDict):
    """Last reply of a whole run: answers of each silo with the student's accuracy, and which images it was measured on.

    Attributes:
        final: pair of the answers of each silo and the student's accuracy, in [0, 1].
        split: name of the images that the accuracy is of, "validation" or "test".
    """

    final: list[float]
    split: str


class CurveRun(CurveEnding):
    """One run of a curve.

    Attributes:
        seed: seed of the run.
        points: pairs of answers of each silo and accuracy, one for each evaluated round.
    """

    seed: int
    points: list[list[float]]


class CurvePoint(TypedDict):
    """Accuracy over seeds at one number of answers.

    Attributes:
        answers: number of images that each silo has answered.
        mean, std: mean and sample standard deviation of the accuracy; the deviation of a single seed is None.
        each: accuracy of each seed, in [0, 1].
    """

    answers: int
    mean: float
    std: float | None
    each: list[float]


class Curve(TypedDict):
    """Accuracy against answers of one side: its seeds, the images it was measured on, rounds and final fit."""

    seeds: list[int]
    split: str
    points: list[CurvePoint]
    final: CurvePoint


class Spread(TypedDict):
    """Median, least and most of some values, and the values in their order."""

    median: float
    least: float
    most: float
    each: list[float]


class StageFigures(Memory):
    """What one stage takes on one side.

    Attributes:
        wall_s, cpu_s: seconds of one unit, a step or a round.
        images_per_second: images by the clock that the figures go by.
        images: number of images in one unit.
        over_bare: seconds of the stage over those of the bare passes of the same networks; None where it has none.
    """

    wall_s: Spread
    cpu_s: Spread
    images_per_second: float
    images: float
    over_bare: Ratio | None


class Ratio(TypedDict):
    """Seconds over seconds, pair by pair of neighbouring calls, by either clock."""

    wall_s: Spread
    cpu_s: Spread


class StageRow(TypedDict):
    """One stage on each side.

    Attributes:
        stage, what: name of the stage, and what it does in words.
        sides: figures by the side's name.
        ratio, same_outcome: comparison of two sides; left out where there is one.
    """

    stage: str
    what: str
    sides: dict[str, StageFigures]
    ratio: NotRequired[Ratio]
    same_outcome: NotRequired[bool]


class SideFacts(TypedDict):
    """What was measured on one side.

    Attributes:
        label: name of the side, shown to people.
        config: name of the YAML file.
        set: `a.b=c` items.
        commit: commit of the source; None where it has none.
        seed: configured seed.
        device: device that the stages ran on.
        threads: number of CPU threads that they used.
        values: configuration of the run, by section.
    """

    label: str
    config: str
    set: list[str]
    commit: str | None
    seed: int
    device: str
    threads: int
    values: dict[str, Any]


class BenchResult(TypedDict):
    """Content of bench.json.

    Attributes:
        sides: facts by the side's name, "this" and "other".
        differs: values of both sides by dotted key, where they differ.
        clock: clock that the figures go by.
        steps, repeats: optimiser steps in one timed call, and calls of each stage and side.
        throughput: one row for each stage.
        curve: accuracy against answers by the side's name; None where no runs were asked for.
        machine: processor, number of cores and system.
        versions: versions of Python and of what a run stands on.
        script_commit: commit of the measuring script.
    """

    sides: dict[str, SideFacts]
    differs: dict[str, list[Any]]
    clock: Clock
    steps: int
    repeats: int
    throughput: list[StageRow]
    curve: dict[str, Curve] | None
    machine: dict[str, str | int | None]
    versions: dict[str, str]
    script_commit: str | None
