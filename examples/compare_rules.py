# SPDX-License-Identifier: Apache-2.0
"""Two aggregation rules over three seeds, as one table of means and standard deviations.

    python examples/compare_rules.py

About two minutes of one core. Answers cost privacy, money and time: each seed asks once, and the second rule is fitted
to what is banked.
"""

import csv
import statistics
import sys

from own_teachers import CLASSES, organisations

import fedcpsc

FIRST, SECOND, SEEDS = "uniform", "answer_peak_log", (1, 2, 3)
STUDENT = {"width": 8, "shift": 0, "final_steps": 800}

own = organisations()
accuracies: dict[str, list[float]] = {FIRST: [], SECOND: []}
with fedcpsc.simulate(own.models, classes=CLASSES, image_shape=(1, 8, 8), normalisation="none") as federation:
    for seed in SEEDS:
        asked = fedcpsc.distill(
            federation,
            answers=1000,
            rounds=5,
            student=STUDENT,
            seed=seed,
            held_out=own.held_out,
            config={"aggregation.rule": FIRST},
        )
        refitted = fedcpsc.refit(asked, aggregation=SECOND, held_out=own.held_out)
        for run in (asked, refitted):
            if (accuracy := run.result.student.accuracy) is not None:  # measured, for there are held-out images
                accuracies[run.config.aggregation.rule].append(accuracy)
    spent = [silo.answers_total - silo.answers_left for silo in federation.silos]

table = csv.writer(sys.stdout)
table.writerow(["rule", "mean", "std", "each"])
for rule, each in accuracies.items():
    mean, std = statistics.mean(each), statistics.stdev(each)
    table.writerow([rule, f"{mean:.3f}", f"{std:.3f}", " ".join(f"{value:.3f}" for value in each)])
print(f"answers paid by each silo: {spent}")
