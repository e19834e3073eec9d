# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("crash_points.py")


def test_a_run_killed_anywhere_and_resumed_pays_once_loses_nothing_and_gives_the_same_student(tmp_path: Path) -> None:
    """SIGKILL at every point, e.g. between charge and reply, amid a journal's line, before a checkpoint."""
    paths = [str(TESTS), str(TESTS / "gatekeeper"), str(TESTS.parent)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = json.loads(done.stdout.splitlines()[-1])
    assert {
        "after the charge",
        "before the reply is stored",
        "before the reply is sent",
        "in the journal's line: head",
        "in the journal's line: answer",
        "in the journal's line: part",
        "after the journal's line: part",
        "after the journal's line: answer",
        "before state.pt is replaced",
        "before result.json is replaced",
    } <= set(names)
