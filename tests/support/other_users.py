"""A gatekeeper and a SuperNode as two other users of this machine, which needs root.

Both users are the system's; the gatekeeper's socket is the command line's, made as `--group` makes it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.documented import ROOT

OWNER, NODE, GROUP = "daemon", "nobody", "users"  # of every Debian, and of most others
PATHS = [str(ROOT), *(str(ROOT / "tests" / name) for name in (".", "gatekeeper"))]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(PATHS), "PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent"}
ENVIRONMENT |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}


def as_user(name: str, *arguments: str) -> list[str]:
    """This Python with other arguments, under another user, in the relay's group and no other."""
    user = pwd.getpwnam(name)
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--groups", GROUP, "--inh-caps=-all", "--no-new-privs"]
    return ["setpriv", *ids, "--", sys.executable, *arguments]


def needs_other_users() -> None:
    """Skips the test where it cannot become these users, or they cannot run this Python."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to be two other users")
    imports = "import numpy, fedcpsc.errors"
    for user in (OWNER, NODE):
        tried = subprocess.run(as_user(user, "-c", imports), env=ENVIRONMENT, cwd="/", capture_output=True, check=False)
        if tried.returncode:
            pytest.skip(f"{user} cannot run this Python: {tried.stderr.decode()[-200:]}")


@contextmanager
def served(folder: Path, place: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Gives the silo in `folder` to its owner and serves it at `place`, in a folder made here, logging to `log`."""
    place.parent.mkdir()
    place.parent.chmod(0o755)
    folder.chmod(0o700)
    owner = pwd.getpwnam(OWNER)
    for path in (place.parent, folder, *folder.iterdir()):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    serve = ["-m", "fedcpsc.cli", "gatekeeper", "serve", str(folder), "--socket", str(place), "--group", GROUP]
    with log.open("wb") as errors:
        command = as_user(OWNER, *serve, "--log-format", "json")
        process = subprocess.Popen(command, env=ENVIRONMENT, cwd="/", stderr=errors, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not place.is_socket():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)
