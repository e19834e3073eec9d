# SPDX-License-Identifier: Apache-2.0
"""bench.png: images a second, memory and, where runs were made, accuracy against answers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcpsc.bench.results import BenchResult, Curve

__all__ = ["save_picture"]

_COLOURS = {"this": "#0b6e99", "other": "#b0601a"}
_MARKERS = {"this": "o", "other": "s"}
_DASHES = {"this": "-", "other": "--"}


def save_picture(path: Path, bench: BenchResult) -> None:
    """Draws what bench.json says.

    Args:
        bench: content of bench.json.
    """
    panels = 3 if bench["curve"] else 2
    figure = Figure(figsize=(1.2 + 4.2 * panels, 4.4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _speed(axes[0], bench)
    _memory(axes[1], bench)
    if bench["curve"]:
        _curve(axes[2], bench["curve"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=1, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _speed(axis: Axes, bench: BenchResult) -> None:
    rows, clock = bench["throughput"], bench["clock"]
    for place, (name, side) in enumerate(bench["sides"].items()):
        figures = [row["sides"][name] for row in rows]
        rates = [f["images_per_second"] for f in figures]
        slowest = [f["images"] / f[clock]["most"] for f in figures]
        fastest = [f["images"] / f[clock]["least"] for f in figures]
        errors = [[r - low for r, low in zip(rates, slowest, strict=True)]]
        errors.append([high - r for r, high in zip(rates, fastest, strict=True)])
        offsets = [i + (place - (len(bench["sides"]) - 1) / 2) * 0.3 for i in range(len(rows))]
        label = f"{name}: {side['label']}, {side['commit'] or 'no commit'}, {side['device']}"
        axis.errorbar(rates, offsets, xerr=errors, fmt=_MARKERS[name], color=_COLOURS[name], capsize=2, label=label)
    names = [row["stage"] for row in rows]
    if len(bench["sides"]) == 2:
        names = [f"{row['stage']}\n{row['ratio'][clock]['median']:.2f}x" for row in rows]
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set_xlabel(f"images a {'CPU second' if clock == 'cpu_s' else 'second'} (median, least and most)")
    title = "Speed" if len(bench["sides"]) == 1 else "Speed; x: other's seconds / this one's"
    axis.set_title(title, fontsize=10, loc="left")
    axis.grid(axis="x", which="both", alpha=0.25)


def _memory(axis: Axes, bench: BenchResult) -> None:
    rows = bench["throughput"]
    on_gpu = any(f["gpu_peak_MiB"] is not None for row in rows for f in row["sides"].values())
    key: Literal["gpu_peak_MiB", "peak_MiB"] = "gpu_peak_MiB" if on_gpu else "peak_MiB"
    width = 0.8 / len(bench["sides"])
    for place, name in enumerate(bench["sides"]):
        offsets = [i + (place - (len(bench["sides"]) - 1) / 2) * width for i in range(len(rows))]
        peaks = [row["sides"][name][key] or 0.0 for row in rows]
        drawn = axis.barh(offsets, peaks, 0.9 * width, color=_COLOURS[name])
        axis.bar_label(drawn, fmt="%.0f", padding=2, fontsize=8)
    axis.set_yticks(range(len(rows)), [row["stage"] for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.margins(x=0.15)
    where = "GPU memory" if on_gpu else "resident memory of the process, torch included"
    axis.set_xlabel("MiB at most")
    axis.set_title(f"Peak {where}", fontsize=10, loc="left")


def _curve(axis: Axes, curves: dict[str, Curve]) -> None:
    for name, curve in curves.items():
        colour = _COLOURS[name]
        points = curve["points"]
        answers = [point["answers"] for point in points]
        means = [100 * point["mean"] for point in points]
        axis.plot(answers, means, _DASHES[name], marker=_MARKERS[name], markersize=3, color=colour)
        low = [100 * (point["mean"] - (point["std"] or 0)) for point in points]
        high = [100 * (point["mean"] + (point["std"] or 0)) for point in points]
        axis.fill_between(answers, low, high, color=colour, alpha=0.15, linewidth=0)
        final = curve["final"]
        axis.errorbar(
            final["answers"],
            100 * final["mean"],
            yerr=100 * (final["std"] or 0),
            fmt="*",
            color=colour,
            markersize=11,
            capsize=3,
        )
    some = next(iter(curves.values()))
    axis.set_xlim(0)
    axis.set_xlabel("answers of each silo")
    axis.set_ylabel(f"student's accuracy on {some['split']} images, %")
    seeds = len(some["seeds"])
    spread = "; band: std" if seeds > 1 else ""
    axis.set_title(f"{seeds} seed{'s' if seeds > 1 else ''}{spread}; star: final fit", fontsize=10, loc="left")
    axis.grid(alpha=0.25)
