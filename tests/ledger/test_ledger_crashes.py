# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("ledger_crashes.py")


def test_a_thousand_deaths_break_no_promise(tmp_path: Path) -> None:
    """Never an answer without its charge, never two replies to one query, spent only grows (see the script)."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "500"], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 1000
