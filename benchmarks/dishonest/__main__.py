# SPDX-License-Identifier: Apache-2.0
"""Rules x attacks x skew: what one silo that lies, or several that lie together, take from ensembles and students.

    python -m benchmarks.dishonest --data ../data --out benchmarks/results/dishonest.json --silos /tmp/silos

Silos are trained as `fedcpsc teachers` would and asked prior images; no generator, no rounds. What is measured is made
by the product's own targets, rules and fit. Silos keep `data.validation` images for measuring; the test split is never
read. Rows are merged into the file as they come, and rows that it holds are not measured again.

Differences are to the run without the silos that lie: *mean*, *std* and *worst* to `answer_peak_log`, not judged, on
the others; *same* to the row's own rule on them; *witnessed* what of that falls on images of classes of which two
honest silos at least have ten images: of the others, a lie stands against one word or none. Ensembles: every silo the
liar in turn (of ten five with each seed), or up to six groups, under `answer_peak_log` judged and not; the other rules
with one group a seed. Students: the liar rotates with attack and seed. *late_targets*, of silos that turned: share of
the targets of the bank's second half that are what they are while all are honest, less that share in the run without
the liar.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.dishonest.attacks import ATTACKS, FORMS
from benchmarks.dishonest.compare import ADAPTIVE, STEPS, Bench
from benchmarks.dishonest.measure import PEAK
from benchmarks.dishonest.rows import Row, Rows
from benchmarks.dishonest.worlds import Setting, World, load
from benchmarks.record import provenance

SEEDS = (1, 2, 3)
COLLUDING = {5: 2, 10: 3}
SKEWS = ("Dirichlet 0.1", "Dirichlet 0.3", "IID")
_MOST_TAUGHT = 5  # silos of the federations of which students are fitted
SETTINGS = tuple(
    Setting(data, silos, skew)
    for data, silos in (("digits", 5), ("MNIST", 5), ("digits", 3), ("digits", 10))
    for skew in SKEWS
)
TAUGHT = tuple(setting for setting in SETTINGS if setting.silos <= _MOST_TAUGHT)
NOBODY = {"attack": "none", "form": "", "liars": 0}


def wanted(setting: Setting, what: str) -> list[tuple[str, str, int]]:
    """(attack, form, liars) of the rows of a setting, in the order in which they are measured."""
    lies = [(attack.name, form) for attack in ATTACKS for form in FORMS] + [(ADAPTIVE, "chosen")]
    if what == "student":
        counted = {attack.name for attack in ATTACKS if attack.lies_of_counts}  # for rules that use counts
        return [("none", "", 0)] + [(name, form, 1) for name, form in lies if name not in counted]
    together = [1] + ([COLLUDING[setting.silos]] if setting.silos in COLLUDING else [])
    return [("none", "", 0)] + [(name, form, liars) for liars in together for name, form in lies]


def measured(bench: Bench, rows: Rows, what: str, attack: str, form: str, liars: int) -> dict[str, Any]:
    """The figures of one row."""
    lies = {one.name: one for one in ATTACKS}
    if what == "student":
        if liars == 0:
            return {"each": bench.students_without()}
        without = rows.get(Rows.key({"what": what, "setting": bench.setting.name, **NOBODY}))
        assert without is not None
        return {"rules": bench.students(lies.get(attack), form, without["each"])}
    if liars == 0:
        return {"rules": bench.honest()}
    return {"rules": bench.adapted(liars) if attack == ADAPTIVE else bench.lied(lies[attack], form, liars)}


def run(setting: Setting, what: str, rows: Rows, worlds: Callable[[], dict[int, World]], steps: int = STEPS) -> None:
    """Measures what is missing of one setting, `ensemble` or `student`."""
    bench: Bench | None = None
    for attack, form, liars in wanted(setting, what):
        row: Row = {"what": what, "setting": setting.name, "attack": attack, "form": form, "liars": liars}
        if rows.get(Rows.key(row)):
            continue
        begun = time.time()
        bench = bench or Bench(setting, worlds(), steps)
        row |= measured(bench, rows, what, attack, form, liars)
        row |= {"config": setting.config, "set": setting.overrides, "images": setting.images, "seeds": list(SEEDS)}
        made = provenance()
        rows.put(row | ({"steps": steps} if what == "student" else {}) | {k: made[k] for k in ("commit", "versions")})
        brief = (row.get("rules") or {}).get(PEAK.name) or row.get("each") or row["rules"]
        print(f"{Rows.key(row)}: {brief} [{time.time() - begun:.0f} s]", flush=True)


def worlds_of(setting: Setting, data: str, silos: Path) -> dict[int, World]:
    """The setting's federation of each seed."""
    return {seed: load(setting, seed, data, silos) for seed in SEEDS}


def main() -> int:
    """Says what it will cost, and measures all that the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("FEDCPSC_DATA", ""), help="folder of the data sets")
    parser.add_argument("--out", default="dishonest.json")
    parser.add_argument("--silos", default="", help="folder in which teachers are kept for the next call")
    parser.add_argument("--only", default="", help="measure only settings whose name contains this")
    parser.add_argument("--what", default="", choices=("", "ensemble", "student"), help="measure only one of the two")
    parser.add_argument("--cost", action="store_true", help="say what it costs, and end")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    silos = Path(arguments.silos or tempfile.mkdtemp(prefix="fedcpsc-silos-"))
    silos.mkdir(parents=True, exist_ok=True)
    rows = Rows(Path(arguments.out))
    jobs = [("ensemble", setting) for setting in SETTINGS] + [("student", setting) for setting in TAUGHT]
    jobs = [job for job in jobs if arguments.only in job[1].name and arguments.what in job[0]]
    for what, setting in jobs:
        keys = [dict(zip(("attack", "form", "liars"), one, strict=True)) for one in wanted(setting, what)]
        missing = sum(rows.get(Rows.key({"what": what, "setting": setting.name, **key})) is None for key in keys)
        print(f"{what:<9} {setting.name}: {missing} rows of {len(keys)} to measure", flush=True)
    if arguments.cost:
        return 0
    for what, setting in jobs:
        run(setting, what, rows, partial(worlds_of, setting, arguments.data, silos))
    return 0


if __name__ == "__main__":
    sys.exit(main())
