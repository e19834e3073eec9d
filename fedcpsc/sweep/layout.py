# SPDX-License-Identifier: Apache-2.0
"""What a sweep's folder holds. Each name is spelt here and nowhere else.

plan.yaml              the plan as it was run last; a folder with it holds a sweep
runs/<run>/            one run's folder, as `fedcpsc run` leaves it
silos/<run>/<i>/       that run's silos, with ledgers of their own
made/<key>/<i>/        silos as they were made, which nobody asks; runs whose silos are alike copy them
made/<key>/made.json   hashes of their teachers, by silo
logs/<task>.log        what the process of a run, or of the making of silos, printed
table.csv              one row for each run; table.parquet the same with types
summary.csv            one row for each setting: mean and standard deviation over its seeds
sweep.json             all of it, with what it was made by
sweep.png index.html   the summary as a picture and as a page
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

__all__ = [
    "LOGS_FOLDER",
    "MADE_FILE",
    "MADE_FOLDER",
    "PAGE_FILE",
    "PICTURE_FILE",
    "PLAN_FILE",
    "RUNS_FOLDER",
    "SILOS_FOLDER",
    "SUMMARY_FILE",
    "SWEEP_FILE",
    "TABLE_FILE",
    "TYPED_TABLE_FILE",
    "log_of",
    "run_name",
]

PLAN_FILE: Final = "plan.yaml"
RUNS_FOLDER: Final = "runs"
SILOS_FOLDER: Final = "silos"
MADE_FOLDER: Final = "made"
MADE_FILE: Final = "made.json"
LOGS_FOLDER: Final = "logs"
TABLE_FILE: Final = "table.csv"
TYPED_TABLE_FILE: Final = "table.parquet"
SUMMARY_FILE: Final = "summary.csv"
SWEEP_FILE: Final = "sweep.json"
PICTURE_FILE: Final = "sweep.png"
PAGE_FILE: Final = "index.html"

_LONGEST = 48  # characters of a setting's name in the name of a folder


def run_name(setting: str, seed: int) -> str:
    """Name of a run's folder; it depends on nothing else, so that added settings rename no run.

    Args:
        setting: name of the setting; where it is no plain name, a hash tells it from others that look alike.
        seed: seed of the run.
    """
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", setting).strip("-._=")[:_LONGEST].replace("=", "-")
    if plain != setting:
        plain = "-".join(filter(None, [plain, hashlib.sha256(setting.encode()).hexdigest()[:6]]))
    return f"{plain}-seed{seed}"


def log_of(folder: Path, task: str) -> Path:
    """File that takes what a task's process prints.

    Args:
        folder: folder of the sweep.
        task: name of the task.
    """
    return folder / LOGS_FOLDER / f"{task}.log"
