# SPDX-License-Identifier: Apache-2.0
"""Whether anything that the server sees of a run tells how good its student is, without test images.

    python -m benchmarks.estimates --out benchmarks/results/estimates.json SWEEP [SWEEP ...]

A sweep is a folder of runs as `benchmarks.accuracy_per_answer --sweeps` leaves it, one kind of pictures each. Of every
quantity: Spearman's rank correlation with the student's accuracy on test images, over runs and over kinds' means, and
with its share of the ensemble's accuracy; and for both the mean error in points of a line through the logits of all
other kinds' runs (leave one kind out), beside that of guessing a mean.
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
from benchmarks.suspected import Answers, answers_of
from fedcpsc.aggregation.reputation import judge
from fedcpsc.choices import DEFAULT_MIXTURE
from fedcpsc.data.images import to_uint8
from fedcpsc.distillation.estimate import steadfastness
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.targets import class_entropy
from fedcpsc.errors import RunError, explain
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.runs.bank_view import find_bank
from fedcpsc.runs.read import gather
from fedcpsc.runs.student import load_student

Numbers = npt.NDArray[np.float64]
AGREEMENT = "agreement of silos on what they know best"
STEADFASTNESS = "student gives fresh images the same class in another view"
BOTH = "the two together"
_KNOWN = ("kind", "run", "accuracy", "ensemble")  # what is no quantity that a server sees
_HIGHEST = 99.7  # percent: more is counted as so much, for its logit
FRESH = 2000  # images of the default priors that nobody was asked about


def quantities(run: Path) -> dict[str, float]:
    """What the server sees of a finished run, and the student's accuracy in percent.

    Args:
        run: folder of the run.

    Raises:
        RunError: it holds no answers, nothing was measured on test images, or its silos cannot be compared.
    """
    bank, found = find_bank(run), gather(run)
    result = found.result
    if bank is None or result is None or result["student"]["accuracy"] is None:
        raise RunError(explain("run", str(run), "has no answers, or no accuracy", "give the folder of a finished run"))
    said, given = answers_of(bank)
    standing = judge(Answers(said, given), bank.label_sets.known)
    seen, pairs = said.argmax(2), np.triu_indices(len(said), 1)
    agreement = None if standing is None else standing.usual_agreement
    if agreement is None:
        constraint = "has no three silos that can be compared"
        raise RunError(explain("run", str(run), constraint, "leave it out: there nothing is estimated"))
    alike = float(np.mean([(seen[a] == seen[b]).mean() for a, b in zip(*pairs, strict=True)]))
    targets, images = np.array(bank.targets), np.array(bank.images)
    student = load_student(found).network
    stream, mixture = torch.Generator().manual_seed(2), dict.fromkeys(DEFAULT_MIXTURE, 1.0)
    at_fresh = predict(student, to_uint8(sample_prior(mixture, FRESH, student.image_shape, stream)).numpy())
    return {
        "accuracy": 100 * float(result["student"]["accuracy"]),
        "ensemble": 100 * float(result["ensemble"]["accuracy"] or 0),
        "class entropy of the bank": class_entropy(targets),
        AGREEMENT: agreement,
        "images that two silos give one class": alike,
        "confidence of silos": float(said.max(2).mean()),
        "confidence of targets": float(targets.max(1).mean()),
        "information in targets": _information(targets),
        "information in silos' answers": float(np.mean([_information(each) for each in said])),
        "student and targets on the bank": float((predict(student, images).argmax(1) == targets.argmax(1)).mean()),
        "confidence of the student on fresh images": float(at_fresh.max(1).mean()),
        STEADFASTNESS: steadfastness(student),
    }  # fmt: skip


def _entropy(p: npt.NDArray[np.floating[Any]]) -> float:
    return float(-(p * np.log(np.maximum(p, 1e-12))).sum(-1).mean())


def _information(answers: npt.NDArray[np.floating[Any]]) -> float:
    """Mutual information of image and class, as a share of the most that K classes allow."""
    return (_entropy(answers.mean(0)) - _entropy(answers)) / float(np.log(answers.shape[1]))


def line(x: Numbers, y: Numbers) -> Numbers:
    """The line through the logits: its value where all quantities are 0, and what each adds.

    Args:
        x: quantities of each run, [Q, n].
        y: percentages, [n].
    """
    share = np.clip(y, 1, _HIGHEST) / 100
    design = np.stack([np.ones_like(y), *x], 1)
    found: Numbers = np.linalg.lstsq(design, np.log(share / (1 - share)), rcond=None)[0]
    return found


def left_out_error(x: Numbers, y: Numbers, kind: npt.NDArray[np.int64]) -> float:
    """Mean absolute error in points, each kind predicted by the line through the other kinds' runs.

    Args:
        x: quantities of each run, [Q, n]; of none, the line is a mean.
        y: percentages, [n].
        kind: kind of pictures of each run.
    """
    errors = []
    for held in np.unique(kind):
        rest = kind != held
        start, *slopes = line(x[:, rest], y[rest])
        logits = start + sum(slope * each for slope, each in zip(slopes, x[:, ~rest], strict=True))
        errors.append(np.abs(100 / (1 + np.exp(-logits)) - y[~rest]).mean())
    return float(np.mean(errors))


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each quantity, and for the two of the product together, rank correlations and errors, best first.

    Args:
        rows: `kind`, `run`, `accuracy`, `ensemble` and the quantities of each run.

    Raises:
        RunError: of a run the ensemble's accuracy is not known.
    """
    kinds, kind = np.unique([row["kind"] for row in rows], return_inverse=True)
    accuracy, ensemble = (np.array([row[name] for row in rows]) for name in ("accuracy", "ensemble"))
    if not (ensemble > 0).all():
        remedy = "leave it out: only a simulation knows the ensemble"
        unknown = rows[int(np.argmin(ensemble))]["run"]
        raise RunError(explain("run", unknown, "has no accuracy of the ensemble to compare with", remedy))
    share = 100 * np.minimum(1, accuracy / ensemble)

    def means(values: Numbers) -> Numbers:
        return np.array([values[kind == k].mean() for k in range(len(kinds))])

    def found(name: str, x: Numbers, told: Numbers) -> dict[str, Any]:
        return {
            "quantity": name,
            "rank_runs": round(float(spearmanr(told, accuracy).statistic), 2),
            "rank_kinds": round(float(spearmanr(means(told), means(accuracy)).statistic), 2),
            "rank_share": round(float(spearmanr(told, share).statistic), 2),
            "error": round(left_out_error(x, accuracy, kind), 1),
            "error_share": round(left_out_error(x, share, kind), 1),
        }

    each = {name: np.array([row[name] for row in rows]) for name in rows[0] if name not in _KNOWN}
    both = np.stack([each[AGREEMENT], each[STEADFASTNESS]])
    fitted, nothing = line(both, share), np.zeros((0, len(rows)))
    all_of_them = [found(name, values[None], values) for name, values in each.items()]
    all_of_them.append(found(BOTH, both, fitted[0] + fitted[1:] @ both))
    return {
        "kinds": len(kinds),
        "runs": len(rows),
        "guessed": round(left_out_error(nothing, accuracy, kind), 1),
        "guessed_share": round(left_out_error(nothing, share, kind), 1),
        "line": [round(float(value), 3) for value in fitted],
        "found": sorted(all_of_them, key=lambda one: float(one["error_share"])),
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
        ranks = " / ".join(f"{one[name]:5.2f}" for name in ("rank_runs", "rank_kinds", "rank_share"))
        print(f"{one['quantity']:58} ranks {ranks}, errors {one['error']}, {one['error_share']}")
    print(f"a mean: errors {content['guessed']}, {content['guessed_share']}; line {content['line']}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
