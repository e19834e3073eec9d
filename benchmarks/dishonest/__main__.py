# SPDX-License-Identifier: Apache-2.0
"""Rules x attacks x skew: what one silo that lies, or several that lie together, take from ensembles and students.

    python -m benchmarks.dishonest --data ../data --out benchmarks/results/dishonest.json --silos /tmp/silos

Silos are trained as `fedcpsc teachers` would and asked prior images; no generator, no rounds. What is measured is made
by the product's own targets, rules and fit. Silos keep `data.validation` images for measuring; the test split is never
read. Rows are merged into the file as they come, and rows that it holds are not measured again.

Differences are to the run without the silos that lie: *mean*, *std* and *worst* to `answer_peak_log`, not judged, on
the others; *same* to the row's own rule on them. Ensembles: every silo the liar in turn, or up to six groups, under
`answer_peak_log` judged and not; the other rules with one group a seed. Students: the liar rotates with attack and
seed. *late_targets*, of silos that turned: share of the targets of the bank's second half that are what they are while
all are honest, less that share in the run without the liar.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.dishonest.attacks import ATTACKS, FORMS, Attack
from benchmarks.dishonest.measure import PEAK, PLAIN_PEAK, RULES_TRIED, Outcome, Rule, adapted, ensembles, named
from benchmarks.dishonest.measure import spread as spread_of
from benchmarks.dishonest.measure import student as student_of
from benchmarks.dishonest.worlds import Setting, World, groups, lie, load
from benchmarks.record import provenance

SEEDS = (1, 2, 3)
STEPS = 400  # of a student
MOST_GROUPS = 6  # of colluders
COLLUDING = {5: 2, 10: 3}
SKEWS = ("Dirichlet 0.1", "Dirichlet 0.3", "IID")
SETTINGS = tuple(
    Setting(data, silos, skew)
    for data, silos in (("digits", 5), ("MNIST", 5), ("digits", 3), ("digits", 10))
    for skew in SKEWS
)
TAUGHT = tuple(
    Setting(data, 5, skew) for skew in ("Dirichlet 0.3", "Dirichlet 0.1", "IID") for data in ("digits", "MNIST")
)
CONTRASTED = {("random", "certain"), ("shifted labels", "soft"), ("shifted honest mean", "certain")}
ADAPTIVE = "adaptive"
NOBODY = {"attack": "none", "form": "", "liars": 0}
Row = dict[str, Any]


class Rows:
    """The rows of a result file, written anew at each change, one a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self._rows: dict[str, Row] = {self.key(row): row for row in rows}

    @staticmethod
    def key(row: Row) -> str:
        """What tells rows apart."""
        return " | ".join(str(row[part]) for part in ("what", "setting", "attack", "form", "liars"))

    def get(self, key: str) -> Row | None:
        """The row of a key; None where it has not been measured."""
        return self._rows.get(key)

    def put(self, row: Row) -> None:
        """Takes a row in and writes the file."""
        self._rows[self.key(row)] = row
        lines = ",\n".join(json.dumps(one) for one in self._rows.values())
        partial = self._path.with_suffix(".partial")
        partial.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        partial.replace(self._path)


class Bench:
    """One setting's measurements.

    Args:
        setting: setting that is measured.
        worlds: its federation of each seed.
        steps: steps of a student.
    """

    def __init__(self, setting: Setting, worlds: dict[int, World], steps: int = STEPS) -> None:
        self.setting = setting
        self._worlds = worlds
        self._steps = steps
        self._without: dict[tuple[int, tuple[int, ...], str], Outcome] = {}
        self._honest = {
            seed: dict(zip(RULES_TRIED, ensembles(world, world.said, world.counts, RULES_TRIED), strict=True))
            for seed, world in worlds.items()
        }

    def honest(self) -> dict[str, Any]:
        """Each rule's loss against the best of those that judge nobody, seed by seed, and how many are accused."""
        rules: dict[str, Any] = {}
        for rule in RULES_TRIED:
            found = [self._honest[seed][rule] for seed in self._worlds]
            best = [max(o.accuracy for r, o in self._honest[seed].items() if not r.robust) for seed in self._worlds]
            rules[rule.name] = spread_of([o.accuracy - most for o, most in zip(found, best, strict=True)])
            rules[rule.name]["accuracy"] = round(float(np.mean([o.accuracy for o in found])), 2)
            accused = [one for o in found for one in named(o.standing, ()).get("accused", [])]
            if accused:
                rules[rule.name] |= {"accused": sum(accused), "judged": len(accused)}
        return rules

    def lied(self, attack: Attack, form: str, together: int) -> dict[str, Any]:
        """Every rule's differences under one lie."""
        every = groups(self.setting.silos, together, self.setting.silos if together == 1 else MOST_GROUPS)
        values: dict[Rule, list[dict[str, Any]]] = defaultdict(list)
        for seed, world in self._worlds.items():
            for number, liars in enumerate(every):
                one_of_seed = number == (seed + ATTACKS.index(attack)) % len(every)
                rules = [rule for rule in RULES_TRIED if one_of_seed or rule.rule == PEAK.rule]
                if attack.lies_of_counts:
                    rules = [rule for rule in RULES_TRIED if rule.rule == "class_prior_log"]
                said, counts = lie(world, attack, form, liars, seed)
                for rule, outcome in zip(rules, ensembles(world, said, counts, rules), strict=True):
                    values[rule].append(self._compared(seed, liars, rule, outcome, attack.name))
        return {rule.name: _summary(found) for rule, found in values.items()}

    def adapted(self, together: int) -> dict[str, Any]:
        """The same under the most harmful lie of those who know the rule, `answer_peak_log` judged."""
        every = groups(self.setting.silos, together, self.setting.silos if together == 1 else MOST_GROUPS)
        values, chosen = [], Counter[str]()
        for seed, world in self._worlds.items():
            for liars in every:
                choice, said = adapted(world, liars, seed, PEAK, self._honest[seed][PEAK].standing)
                (outcome,) = ensembles(world, said, world.counts, [PEAK])
                values.append(self._compared(seed, liars, PEAK, outcome, ADAPTIVE))
                chosen[choice] += 1
        return {PEAK.name: _summary(values) | {"chosen": dict(chosen.most_common(3))}}

    def students_without(self) -> dict[str, Any]:
        """Accuracy of the students of all silos, and of those of all but one: `SEED/LIAR`, or `SEED/` of all."""
        found = {}
        for seed, world in self._worlds.items():
            for liar in (None, *range(self.setting.silos)):
                kept = [s for s in range(self.setting.silos) if s != liar]
                outcome = student_of(world, world.said[kept], world.counts[kept], PEAK, seed, self._steps)
                found[f"{seed}/{'' if liar is None else liar}"] = round(outcome.accuracy, 3)
        return found

    def students(self, attack: Attack | None, form: str, without: dict[str, float]) -> dict[str, Any]:
        """Differences of students whose silos were lied to; `attack` None: by a liar who knows the rule."""
        name = attack.name if attack else ADAPTIVE
        place = 2 * ATTACKS.index(attack) + (form == "soft") if attack else 0
        rules = (PEAK, PLAIN_PEAK) if (name, form) in CONTRASTED else (PEAK,)
        values: dict[Rule, list[dict[str, Any]]] = defaultdict(list)
        for seed, world in self._worlds.items():
            liar = (place + seed) % self.setting.silos
            if attack:
                said, counts = lie(world, attack, form, [liar], seed)
            else:
                _, said = adapted(world, [liar], seed, PEAK, self._honest[seed][PEAK].standing)
                counts = world.counts
            for rule in rules:
                outcome = student_of(world, said, counts, rule, seed, self._steps)
                one = {"difference": outcome.accuracy - without[f"{seed}/{liar}"], **named(outcome.standing, [liar])}
                values[rule].append(one | ({"backdoor": outcome.backdoor} if name == "backdoor" else {}))
        return {rule.name: _summary(found) for rule, found in values.items()}

    def _compared(self, seed: int, liars: tuple[int, ...], rule: Rule, outcome: Outcome, name: str) -> dict[str, Any]:
        plain, own = self._left_out(seed, liars, PLAIN_PEAK), self._left_out(seed, liars, rule)
        one = {
            "difference": outcome.accuracy - plain.accuracy,
            "same": outcome.accuracy - own.accuracy,
            **named(outcome.standing, liars),
        }
        if name == "backdoor":
            one |= {"backdoor": outcome.backdoor, "backdoor_without": own.backdoor}
        if name == "turned":
            late = slice(len(outcome.targets) // 2, None)
            honest = self._honest[seed][rule].targets[late]
            kept, without = ((o.targets[late] == honest).mean() for o in (outcome, own))
            one["late_targets"] = 100 * float(kept - without)
        return one

    def _left_out(self, seed: int, liars: tuple[int, ...], rule: Rule) -> Outcome:
        key = (seed, liars, rule.name)
        if key not in self._without:
            world = self._worlds[seed]
            kept = [s for s in range(self.setting.silos) if s not in liars]
            (self._without[key],) = ensembles(world, world.said[kept], world.counts[kept], [rule])
        return self._without[key]


def _summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {**spread_of([one["difference"] for one in found]), "runs": len(found)}
    for key in ("same", "late_targets"):
        if key in found[0]:
            values = spread_of([one[key] for one in found])
            row |= {key: values["mean"], f"{key}_worst": values["worst"]}
    for key in ("named", "lowest", "accused"):
        if flags := [flag for one in found for flag in one.get(key, [])]:
            row[key] = round(float(np.mean(flags)), 4)
    for key in ("backdoor", "backdoor_without"):
        if key in found[0]:
            row[key] = round(float(np.mean([one[key] for one in found])), 2)
    return row


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
        run(setting, what, rows, lambda s=setting: {seed: load(s, seed, arguments.data, silos) for seed in SEEDS})
    return 0


if __name__ == "__main__":
    sys.exit(main())
