# SPDX-License-Identifier: Apache-2.0
"""A configuration whose stages take milliseconds."""

TINY = (
    "queries.answers_per_silo=40",
    "queries.rounds=4",
    "synthesis.width=4",
    "synthesis.batch_size=8",
    "synthesis.steps=2",
    "synthesis.candidates=2",
    "student.width=4",
    "student.batch_size=8",
    "student.steps_per_round=2",
    "student.final_steps=4",
    "teachers.epochs=1",
    "data.train_limit=200",
    "data.test_limit=50",
    "runtime.device=cpu",
    "runtime.threads=1",
)
