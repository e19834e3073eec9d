# SPDX-License-Identifier: Apache-2.0
"""Two aggregation rules over three seeds, as one table of means and standard deviations.

    python examples/compare_rules.py

About two minutes of one core. Every run pays for answers of its own: a sweep (`fedcpsc sweep`) shares them.
"""

import csv
import statistics
import sys

from own_teachers import CLASSES, organisations

import fedcpsc

RULES, SEEDS = ("uniform", "answer_peak_log"), (1, 2, 3)
QUICK = {"width": 8, "shift": 0, "final_steps": 800}

own = organisations()
table = csv.writer(sys.stdout)
table.writerow(["rule", "student mean", "student std", "ensemble", "answers"])
with fedcpsc.simulate(own.models, classes=CLASSES, image_shape=(1, 8, 8), normalisation="none") as federation:
    for rule in RULES:
        results = [
            fedcpsc.distill(
                federation,
                answers=1000,
                rounds=5,
                student=QUICK,
                seed=seed,
                held_out=own.held_out,
                config={"aggregation.rule": rule},
            ).result
            for seed in SEEDS
        ]
        students = [result.student.accuracy or 0.0 for result in results]
        mean, std = statistics.mean(students), statistics.stdev(students)
        ensemble = results[-1].ensemble.accuracy
        table.writerow([rule, f"{mean:.3f}", f"{std:.3f}", f"{ensemble:.3f}", results[-1].answers_per_silo])
