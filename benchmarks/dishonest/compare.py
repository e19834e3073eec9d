# SPDX-License-Identifier: Apache-2.0
"""A setting's figures under each lie, against the runs without those who tell it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.dishonest.attacks import ATTACKS, Attack
from benchmarks.dishonest.measure import (
    PEAK,
    PLAIN_PEAK,
    RULES_TRIED,
    Outcome,
    Rule,
    adapted,
    ensembles,
    named,
    spread,
    student,
)
from benchmarks.dishonest.worlds import Setting, World, groups, lie

__all__ = ["ADAPTIVE", "STEPS", "Bench"]

ADAPTIVE = "adaptive"
STEPS = 400  # of a student
_MOST_GROUPS = 6  # of colluders
_MANY = 5  # silos, beyond which every second lies in turn with a seed, and the others with the next
_KNOWS = 10  # images of a class, from which a silo is a witness of it
_WITNESSES = 2  # honest ones, so that a lie about the class stands against more than one word
_CONTRASTED = {("random", "certain"), ("shifted labels", "soft"), ("shifted honest mean", "certain")}


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
            rules[rule.name] = spread([o.accuracy - most for o, most in zip(found, best, strict=True)])
            rules[rule.name]["accuracy"] = round(float(np.mean([o.accuracy for o in found])), 2)
            accused = [one for o in found for one in named(o.standing, ()).get("accused", [])]
            if accused:
                rules[rule.name] |= {"accused": sum(accused), "judged": len(accused)}
        return rules

    def lied(self, attack: Attack, form: str, together: int) -> dict[str, Any]:
        """Every rule's differences under one lie."""
        values: dict[Rule, list[dict[str, Any]]] = defaultdict(list)
        for seed, world in self._worlds.items():
            every = self._groups(seed, together)
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
        values, chosen = [], Counter[str]()
        for seed, world in self._worlds.items():
            for liars in self._groups(seed, together):
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
                outcome = student(world, world.said[kept], world.counts[kept], PEAK, seed, self._steps)
                found[f"{seed}/{'' if liar is None else liar}"] = round(outcome.accuracy, 3)
        return found

    def students(self, attack: Attack | None, form: str, without: dict[str, float]) -> dict[str, Any]:
        """Differences of students whose silos were lied to; `attack` None: by a liar who knows the rule."""
        name = attack.name if attack else ADAPTIVE
        place = 2 * ATTACKS.index(attack) + (form == "soft") if attack else 0
        rules = (PEAK, PLAIN_PEAK) if (name, form) in _CONTRASTED else (PEAK,)
        values: dict[Rule, list[dict[str, Any]]] = defaultdict(list)
        for seed, world in self._worlds.items():
            liar = (place + seed) % self.setting.silos
            if attack:
                said, counts = lie(world, attack, form, [liar], seed)
            else:
                _, said = adapted(world, [liar], seed, PEAK, self._honest[seed][PEAK].standing)
                counts = world.counts
            for rule in rules:
                outcome = student(world, said, counts, rule, seed, self._steps)
                one = {"difference": outcome.accuracy - without[f"{seed}/{liar}"], **named(outcome.standing, [liar])}
                values[rule].append(one | ({"backdoor": outcome.backdoor} if name == "backdoor" else {}))
        return {rule.name: _summary(found) for rule, found in values.items()}

    def _groups(self, seed: int, together: int) -> list[tuple[int, ...]]:
        """Every silo, of many every second; or some groups."""
        silos = self.setting.silos
        if together > 1:
            return groups(silos, together, _MOST_GROUPS)
        return groups(silos, 1, silos) if silos <= _MANY else groups(silos, 1, silos)[seed % 2 :: 2]

    def _compared(self, seed: int, liars: tuple[int, ...], rule: Rule, outcome: Outcome, name: str) -> dict[str, Any]:
        plain, own = self._left_out(seed, liars, PLAIN_PEAK), self._left_out(seed, liars, rule)
        one = {
            "difference": outcome.accuracy - plain.accuracy,
            "same": outcome.accuracy - own.accuracy,
            "witnessed": self._witnessed(seed, liars, outcome, own),
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

    def _witnessed(self, seed: int, liars: tuple[int, ...], outcome: Outcome, own: Outcome) -> float:
        """What of the difference falls on classes of which two honest silos at least have images, in points of all."""
        world = self._worlds[seed]
        witnesses = (np.delete(world.counts, liars, axis=0) >= _KNOWS).sum(0)
        of_these = (witnesses >= _WITNESSES)[world.labels]
        change: float = (outcome.right.astype(float) - own.right)[of_these].sum() / len(world.labels)
        return 100 * change

    def _left_out(self, seed: int, liars: tuple[int, ...], rule: Rule) -> Outcome:
        key = (seed, liars, rule.name)
        if key not in self._without:
            world = self._worlds[seed]
            kept = [s for s in range(self.setting.silos) if s not in liars]
            (self._without[key],) = ensembles(world, world.said[kept], world.counts[kept], [rule])
        return self._without[key]


def _summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {**spread([one["difference"] for one in found]), "runs": len(found)}
    for key in ("same", "witnessed", "late_targets"):
        if key in found[0]:
            values = spread([one[key] for one in found])
            row |= {key: values["mean"], f"{key}_worst": values["worst"]}
    for key in ("named", "lowest", "accused"):
        if flags := [flag for one in found for flag in one.get(key, [])]:
            row[key] = round(float(np.mean(flags)), 4)
    for key in ("backdoor", "backdoor_without"):
        if key in found[0]:
            row[key] = round(float(np.mean([one[key] for one in found])), 2)
    return row
