# SPDX-License-Identifier: Apache-2.0
"""What class biases fitted to unlabelled pictures bring (`fedcpsc export --unlabelled`), over finished runs.

    python -m benchmarks.unlabelled --out benchmarks/results/unlabelled.json SWEEP [SWEEP ...]

A sweep is a folder of runs as `benchmarks.accuracy_per_answer --sweeps` leaves it. A run's held-out images are cut in
halves at random, 20 times. From one half pictures are drawn, of which only the student's logits are used; accuracy is
that on the other half. In the skewed cases both halves are drawn with class shares from a Dirichlet distribution; the
export then assumes even shares, or is told the true ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.record import merge, provenance
from fedcpsc.data.sources import evaluation_images
from fedcpsc.distillation.evaluate import predict
from fedcpsc.errors import RunError, explain
from fedcpsc.models.class_biases import class_biases_for
from fedcpsc.runs.read import gather
from fedcpsc.runs.student import load_student
from fedcpsc.sweep.layout import PLAN_FILE, RUNS_FOLDER, run_name
from fedcpsc.sweep.plan import load_plan

Numbers = npt.NDArray[np.float64]
PICTURES = (20, 50, 100, 200)
SKEWS = (3.0, 1.0)
_REPEATS = 20
_SKEWED = 200  # pictures of a skewed case
_LEAST_SHARE = 1e-3


def figures(run: Path) -> dict[str, Any]:
    """Accuracies of one run's student in percent, by case: (as fitted, after).

    Args:
        run: folder of a finished run.

    Raises:
        RunError: it has no held-out images.
    """
    found = gather(run)
    held_out = evaluation_images(found.config)
    if held_out is None or found.result is None:
        raise RunError(explain("run", str(run), "has no result, or no held-out images", "give finished runs"))
    logits = np.log(np.maximum(predict(load_student(found).network, held_out.images), 1e-30)).astype(np.float64)
    labels, classes = held_out.labels, logits.shape[1]
    rng, even = np.random.default_rng(found.config.seed), np.full(classes, 1 / classes)

    def mean(trials: Iterator[tuple[Numbers, Numbers, npt.NDArray[np.int64]]]) -> list[float]:
        """Mean accuracies before and after of trials: (logits of the pictures, shares, images to measure on)."""
        each = []
        for pictures, shares, measured in trials:
            biases = class_biases_for(pictures, shares)
            each.append([float(((logits[measured] + b).argmax(1) == labels[measured]).mean()) for b in (0, biases)])
        return [round(100 * value, 2) for value in np.mean(each, 0)]

    def evenly(count: int) -> Iterator[tuple[Numbers, Numbers, npt.NDArray[np.int64]]]:
        for _ in range(_REPEATS):
            first, other = np.array_split(rng.permutation(len(labels)), 2)
            yield logits[first[:count]], even, other

    def skewed(alpha: float, *, told: bool) -> Iterator[tuple[Numbers, Numbers, npt.NDArray[np.int64]]]:
        for _ in range(_REPEATS):
            shares = np.maximum(rng.dirichlet(np.full(classes, alpha)), _LEAST_SHARE)
            shares /= shares.sum()
            halves = np.array_split(rng.permutation(len(labels)), 2)
            first, other = (_drawn(half, labels, shares, rng) for half in halves)
            yield logits[first], shares if told else even, other

    cases = {f"{count} pictures": mean(evenly(count)) for count in PICTURES}
    for alpha in SKEWS:
        for told in (False, True):
            name = f"{_SKEWED} pictures, Dirichlet {alpha:g}, {'shares stated' if told else 'taken for even'}"
            cases[name] = mean(skewed(alpha, told=told))
    return {"accuracy": round(100 * float(found.result["student"]["accuracy"] or 0), 2), "cases": cases}


def _drawn(
    half: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], shares: Numbers, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """`_SKEWED` of the images in `half`, with replacement, classes with these shares."""
    weights = shares[labels[half]] / np.bincount(labels[half], minlength=len(shares))[labels[half]]
    return rng.choice(half, _SKEWED, p=weights / weights.sum())


def row(setting: str, runs: Sequence[Path]) -> dict[str, Any]:
    """One setting: mean and standard deviation over its runs, of accuracy and of what each case brings.

    Args:
        setting: name of the setting.
        runs: folders of its runs, one a seed.
    """
    found, first = [figures(run) for run in runs], gather(runs[0])
    cases = {}
    for name in found[0]["cases"]:
        before, after = np.array([each["cases"][name] for each in found]).T
        gain = after - before
        cases[name] = {
            "before": _spread(before),
            "after": _spread(after),
            "gain": _spread(gain),
            "each": [round(float(value), 2) for value in after],
        }
    return {
        "setting": setting,
        "answers": first.config.queries.answers_per_silo,
        "accuracy": _spread(np.array([each["accuracy"] for each in found])),
        "cases": cases,
        "seeds": [gather(run).config.seed for run in runs],
        "repeats": _REPEATS,
        "run_commit": None if first.result is None else first.result["commit"],
        **provenance(),
    }


def _spread(values: Numbers) -> list[float]:
    return [round(float(values.mean()), 2), round(float(values.std(ddof=1)) if len(values) > 1 else 0.0, 2)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads sweeps, prints and writes a row for each of their settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", type=Path, help="folders of sweeps")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/unlabelled.json"))
    given = parser.parse_args(arguments)
    for sweep in given.sweeps:
        plan = load_plan(sweep / PLAN_FILE)
        for setting in plan.settings:
            made = row(setting, [sweep / RUNS_FOLDER / run_name(setting, seed) for seed in plan.seeds])
            merge(given.out, [made])
            for name, case in made["cases"].items():
                print(f"{setting}, {name}: {case['before'][0]} -> {case['after'][0]} +- {case['after'][1]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
