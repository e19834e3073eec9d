# SPDX-License-Identifier: Apache-2.0
"""What the files of a run's folder are called. Each name is spelt here and nowhere else.

    config.yaml            every value of the configuration; a folder with it holds a run
    metrics.jsonl          a line a round and a line a part of the final fit, see `metrics.py`
    timeline.jsonl         what was done when, see `timeline.py`
    bank/                  images asked about and their answers, see `answer_bank.py`
    bank/lineage.json       which earlier runs the answers came from, where some did, see `lineage.py`
    public.json            which pictures of the server's own it draws from, where it does, see `real_pictures.py`
    descriptions.json      what each silo said of itself when the run began, see `descriptions.py`
    student.json           what the student began as, where config.yaml does not say it all, see `student_start.py`
    checkpoint/state.pt    the engine's state after the last round, see `checkpoint.py`
    details.json           confusions and contributions, see `read.py`
    evaluations.json       which silos were asked to judge the student, and what they said, see `evaluations.py`
    student.safetensors    the student's weights; generator.safetensors beside it where a generator was made
    result.json            the figures of a finished run, written last, see `result.py`
    error.txt              what a failed run died of, see `failure.py`
    samples.png curve.png  pictures; report.html, export/, audit/ and tensorboard/ where they were asked for
    flower.log superlink.log, run.lock

A white-box run keeps teacher.safetensors and checkpoint.pt instead of bank, time line and checkpoint folder.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "AUDIT_FOLDER",
    "BANK_FOLDER",
    "CHECKPOINT_FILE",
    "CHECKPOINT_FOLDER",
    "CONFIG_FILE",
    "CURVE_FILE",
    "DESCRIPTIONS_FILE",
    "DETAILS_FILE",
    "ERROR_FILE",
    "EVALUATIONS_FILE",
    "EXPORT_FOLDER",
    "FITTED_EXPORT_FOLDER",
    "FLOWER_LOG",
    "GENERATOR_FILE",
    "JOURNAL_FILE",
    "LINEAGE_FILE",
    "LOCK_FILE",
    "METRICS_FILE",
    "PUBLIC_FILE",
    "REPORT_FILE",
    "RESULT_FILE",
    "SAMPLES_FILE",
    "STUDENT_FILE",
    "STUDENT_START_FILE",
    "SUPERLINK_LOG",
    "TENSORBOARD_FOLDER",
    "TIMELINE_FILE",
    "WHITE_BOX_CHECKPOINT_FILE",
    "WHITE_BOX_TEACHER_FILE",
]

CONFIG_FILE: Final = "config.yaml"
METRICS_FILE: Final = "metrics.jsonl"
TIMELINE_FILE: Final = "timeline.jsonl"
BANK_FOLDER: Final = "bank"
JOURNAL_FILE: Final = "journal.jsonl"
"""In the bank's folder."""
LINEAGE_FILE: Final = "lineage.json"
"""In the bank's folder."""
CHECKPOINT_FOLDER: Final = "checkpoint"
CHECKPOINT_FILE: Final = "state.pt"
"""In the checkpoint's folder."""
DESCRIPTIONS_FILE: Final = "descriptions.json"
PUBLIC_FILE: Final = "public.json"
DETAILS_FILE: Final = "details.json"
EVALUATIONS_FILE: Final = "evaluations.json"
STUDENT_FILE: Final = "student.safetensors"
STUDENT_START_FILE: Final = "student.json"
GENERATOR_FILE: Final = "generator.safetensors"
RESULT_FILE: Final = "result.json"
ERROR_FILE: Final = "error.txt"
SAMPLES_FILE: Final = "samples.png"
CURVE_FILE: Final = "curve.png"
REPORT_FILE: Final = "report.html"
EXPORT_FOLDER: Final = "export"
FITTED_EXPORT_FOLDER: Final = "export-unlabelled"  # with class biases fitted to unlabelled pictures
AUDIT_FOLDER: Final = "audit"
TENSORBOARD_FOLDER: Final = "tensorboard"
FLOWER_LOG: Final = "flower.log"
SUPERLINK_LOG: Final = "superlink.log"
LOCK_FILE: Final = "run.lock"
WHITE_BOX_TEACHER_FILE: Final = "teacher.safetensors"
WHITE_BOX_CHECKPOINT_FILE: Final = "checkpoint.pt"
