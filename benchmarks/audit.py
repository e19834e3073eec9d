# SPDX-License-Identifier: Apache-2.0
"""Keeps a finished audit's figures and its main picture as a result.

fedcpsc audit configs/audit_digits.yaml
python -m benchmarks.audit audits/audit-digits
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.tables.markdown import RESULTS
from fedcpsc.audit.verdict import strongest
from fedcpsc.runs.audit_file import read_audit_file


def kept(audit: dict[str, Any]) -> dict[str, Any]:
    """What the tables tell, and how it came about; curves stay in the audit's own folder."""
    parts = ("config", "facts", "versions", "commit", "seeds", "seconds", "verdict", "bounds", "models")
    rows = [{key: value for key, value in row.items() if key != "curve"} for row in audit["rows"]]
    best = [[row["policy"], row["surface"], row["attack"]] for row in strongest(audit["rows"])]
    return {"benchmark": "audit", **{part: audit[part] for part in parts}, "rows": rows, "strongest": best}


def main() -> int:
    """Reads the audit's folder, writes under benchmarks/results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    name = "audit_digits"
    text = json.dumps(kept(read_audit_file(folder)), indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(folder / "roc.png", RESULTS / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
