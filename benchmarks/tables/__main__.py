# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of README and docs from the JSON under `benchmarks/results/`.

python -m benchmarks.tables            # rewrite
python -m benchmarks.tables --check    # exit 1 where a page is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.tables.pages import PAGES, rewrite

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Rewrites or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = False
    for page in PAGES:
        before = (_ROOT / page).read_text(encoding="utf-8")
        after = rewrite(before)
        stale = stale or before != after
        if not arguments.check:
            (_ROOT / page).write_text(after, encoding="utf-8")
    return int(arguments.check and stale)


if __name__ == "__main__":
    sys.exit(main())
