# SPDX-License-Identifier: Apache-2.0
"""A gatekeeper and a SuperNode as two other users of this machine, which needs root.

Both users are the system's; the gatekeeper's socket is the command line's, made as `--group` makes it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import pytest
from support.documented import ROOT

from fedcpsc.launch.processes import flower_environment

OWNER, NODE, GROUP = "daemon", "nobody", "users"  # of every Debian, and of most others
PATHS = [str(ROOT), *(str(ROOT / "tests" / name) for name in (".", "gatekeeper"))]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(PATHS), "PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent"}
_PACKAGES = os.pathsep.join([ENVIRONMENT["PYTHONPATH"], sysconfig.get_path("purelib")])
ENVIRONMENT |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}


def under(name: str) -> list[str]:
    """What, before a command, has it run under another user, in the relay's group and no other."""
    user = pwd.getpwnam(name)
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--groups", GROUP, "--inh-caps=-all", "--no-new-privs"]
    return ["setpriv", *ids, "--"]


def as_user(name: str, *arguments: str) -> list[str]:
    """This Python with other arguments, under another user."""
    return [*under(name), sys.executable, *arguments]


def needs_other_users() -> None:
    """Skips the test where it cannot become these users, or they cannot run this Python."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to be two other users")
    imports = "import numpy, fedcpsc.errors"
    for user in (OWNER, NODE):
        tried = subprocess.run(as_user(user, "-c", imports), env=ENVIRONMENT, cwd="/", capture_output=True, check=False)
        if tried.returncode:
            pytest.skip(f"{user} cannot run this Python: {tried.stderr.decode()[-200:]}")


def node_environment(folder: Path) -> dict[str, str]:
    """For Flower's commands under the node's user, with all that is theirs in `folder`, which is given to that user.

    Where that user cannot pass to this Python, as one process starts another, the commands are written there anew, for
    the system's Python of the same version. Skips the test where there is none.
    """
    environment = flower_environment(folder / "flwr") | ENVIRONMENT
    paths = [str(Path(sys.executable).parent), ENVIRONMENT["PATH"]]
    if not _can_start(sys.executable):
        python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        if not _can_start(python):
            pytest.skip(f"{NODE} can start neither {sys.executable} nor {python}")
        commands = folder / "bin"
        commands.mkdir()
        for command in distribution("flwr").entry_points.select(group="console_scripts"):
            text = f"#!{python}\nimport sys\nfrom {command.module} import {command.attr} as main\nsys.exit(main())\n"
            (commands / command.name).write_text(text)
            (commands / command.name).chmod(0o755)
        paths.insert(0, str(commands))
    (folder / "flwr").mkdir()
    owner = pwd.getpwnam(NODE)
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return environment | {"PATH": os.pathsep.join(paths), "HOME": str(folder), "PYTHONPATH": _PACKAGES}


def _can_start(python: str) -> bool:
    """Whether the node's user can: through a shell, since what this process starts itself may pass where it may not."""
    tried = [*under(NODE), "/bin/sh", "-c", '"$0" -c "import numpy, fedcpsc.errors, flwr"', python]
    environment = ENVIRONMENT | {"PYTHONPATH": _PACKAGES}
    return subprocess.run(tried, env=environment, cwd="/", capture_output=True, check=False).returncode == 0


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
