# SPDX-License-Identifier: Apache-2.0
"""Whether anything that the server sees of a run tells how good its student is, without test images.

    python -m benchmarks.estimates --out benchmarks/results/estimates.json SWEEP [SWEEP ...]

A sweep is a folder of runs as `benchmarks.accuracy_per_answer --sweeps` leaves it, one kind of pictures each. For every
quantity: Spearman's rank correlation with the student's accuracy on test images, over all runs and over the kinds'
means; and the mean error of a straight line through the logarithm of the errors of all other kinds' runs (leave one
kind out), beside that of guessing their mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from benchmarks.record import provenance
from benchmarks.suspected import Answers
from fedcpsc.aggregation.reputation import judge
from fedcpsc.choices import DEFAULT_MIXTURE
from fedcpsc.data.images import to_pixels, to_uint8
from fedcpsc.data.random_views import random_view
from fedcpsc.distillation.evaluate import predict
from fedcpsc.errors import RunError, explain
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.runs.bank_view import find_bank
from fedcpsc.runs.read import gather
from fedcpsc.runs.student import load_student

Numbers = npt.NDArray[np.float64]
AGREEMENT = "agreement of silos on what they know best"
_LEAST = 0.3  # errors in percent: fewer are counted as so many, for their logarithm
FRESH = 2000  # images of the default priors that nobody was asked about


def quantities(run: Path) -> dict[str, float]:
    """What the server sees of a finished run, and the student's accuracy in percent.

    Args:
        run: folder of the run.

    Raises:
        RunError: it holds no answers, or nothing was measured on test images.
    """
    bank, found = find_bank(run), gather(run)
    result = found.result
    if bank is None or result is None or result["student"]["accuracy"] is None:
        raise RunError(explain("run", str(run), "has no answers, or no accuracy", "give the folder of a finished run"))
    parts = [bank.answers(batch) for batch in bank.batches]
    said, given = (np.concatenate([part[i] for part in parts], 1) for i in range(2))
    silos, _, classes = said.shape
    standing = judge(Answers(said, given), bank.label_sets.known)
    seen, pairs = said.argmax(2), np.triu_indices(silos, 1)
    agreement = 0.0 if standing is None else standing.usual_agreement or 0.0
    alike = float(np.mean([(seen[a] == seen[b]).mean() for a, b in zip(*pairs, strict=True)]))
    targets, images = np.array(bank.targets), np.array(bank.images)
    student = load_student(found).network
    stream = torch.Generator().manual_seed(1)
    mixture = dict.fromkeys(DEFAULT_MIXTURE, 1.0)
    fresh = to_uint8(sample_prior(mixture, FRESH, student.image_shape, stream))
    view = to_uint8(random_view(to_pixels(fresh), stream))
    at_fresh, at_view = predict(student, fresh.numpy()), predict(student, view.numpy())
    return {
        "accuracy": 100 * float(result["student"]["accuracy"]),
        "class entropy of the bank": _entropy(targets.mean(0)) / np.log(classes),
        AGREEMENT: agreement,
        "images that two silos give one class": alike,
        "confidence of silos": float(said.max(2).mean()),
        "confidence of targets": float(targets.max(1).mean()),
        "information in targets": _information(targets),
        "information in silos' answers": float(np.mean([_information(each) for each in said])),
        "student and targets on the bank": float((predict(student, images).argmax(1) == targets.argmax(1)).mean()),
        "confidence of the student on fresh images": float(at_fresh.max(1).mean()),
        "student on two views of a fresh image": float((at_fresh.argmax(1) == at_view.argmax(1)).mean()),
    }  # fmt: skip


def _entropy(p: npt.NDArray[np.floating[Any]]) -> float:
    return float(-(p * np.log(np.maximum(p, 1e-12))).sum(-1).mean())


def _information(answers: npt.NDArray[np.floating[Any]]) -> float:
    """Mutual information of image and class, as a share of the most that K classes allow."""
    return (_entropy(answers.mean(0)) - _entropy(answers)) / float(np.log(answers.shape[1]))


def line(x: Numbers, y: Numbers) -> tuple[float, float]:
    """The straight line through the logarithm of the errors in percent: its value at 0, and its slope.

    Args:
        x: quantity of each run.
        y: accuracy of each run in percent.
    """
    slope, start = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), np.log(np.maximum(100 - y, _LEAST)), rcond=None)[
        0
    ]
    return float(start), float(slope)


def left_out_error(x: Numbers, y: Numbers, kind: npt.NDArray[np.int64]) -> float:
    """Mean absolute error in points, each kind predicted by the line through the other kinds' runs.

    Args:
        x: quantity of each run; of zeros, the line is a mean.
        y: accuracy of each run in percent.
        kind: kind of pictures of each run.
    """
    errors = []
    for held in np.unique(kind):
        rest = kind != held
        start, slope = line(x[rest], y[rest])
        errors.append(np.abs(100 - np.minimum(100, np.exp(start + slope * x[~rest])) - y[~rest]).mean())
    return float(np.mean(errors))


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each quantity its rank correlations and its error, best first.

    Args:
        rows: `kind`, and the quantities of each run.
    """
    kinds, kind = np.unique([row["kind"] for row in rows], return_inverse=True)
    accuracy = np.array([row["accuracy"] for row in rows])

    def means(values: Numbers) -> Numbers:
        return np.array([values[kind == k].mean() for k in range(len(kinds))])

    found = []
    for name in (name for name in rows[0] if name not in ("kind", "run", "accuracy")):
        values = np.array([row[name] for row in rows])
        found.append(
            {
                "quantity": name,
                "rank_runs": round(float(spearmanr(values, accuracy).statistic), 2),
                "rank_kinds": round(float(spearmanr(means(values), means(accuracy)).statistic), 2),
                "error": round(left_out_error(values, accuracy, kind), 1),
            }
        )
    fitted = line(np.array([row[AGREEMENT] for row in rows]), accuracy)
    guessed = round(left_out_error(np.zeros(len(rows)), accuracy, kind), 1)
    return {
        "kinds": len(kinds),
        "runs": len(rows),
        "guessed": guessed,
        "line": [round(each, 3) for each in fitted],
        "found": sorted(found, key=lambda one: one["error"]),
    }


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", type=Path, help="folders of sweeps, one kind of pictures each")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for sweep in given.sweeps:
        for result in sorted(sweep.glob("**/runs/*-seed*/result.json")):
            row = quantities(result.parent)
            kind = result.parent.name.rpartition("-seed")[0]
            rows.append(
                {"kind": kind, "run": result.parent.name, **{name: round(value, 4) for name, value in row.items()}}
            )
            print(json.dumps(rows[-1]), file=sys.stderr)
    content = {**summary(rows), "rows": rows, **provenance()}
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for one in content["found"]:
        print(f"{one['quantity']:45} rank {one['rank_runs']:5.2f} / {one['rank_kinds']:5.2f}, error {one['error']}")
    print(f"the others' mean accuracy: error {content['guessed']}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
