# SPDX-License-Identifier: Apache-2.0
"""The folder of a deployment on loopback: what lies where, and whose it is."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.errors import RunError, explain
from fedcpsc.launch.deployment.supervisor import MARK
from fedcpsc.launch.processes import end, marked

__all__ = ["Layout", "claimed"]

_LOCK = "deployment.lock"  # also what distinguishes a deployment's folder from any other
_RUNS = "runs"


@dataclass(frozen=True)
class Layout:
    """Paths below a deployment's folder.

    Attributes:
        folder: absolute path; holds `server/` and `silo-0/`, ..., as the machines would, the staged app, and `runs/`.
    """

    folder: Path

    @property
    def server(self) -> Path:
        """Certificates, secret, database, logs and Flower's settings of the server."""
        return self.folder / "server"

    def silo(self, number: int) -> Path:
        """A silo's SuperNode key, logs, and Flower's files there. Teacher and ledger lie in the silo's own folder."""
        return self.folder / f"silo-{number}"

    @property
    def app(self) -> Path:
        """The app bundle's source; the folder's name is one that Flower accepts."""
        return self.folder / "app" / "fedcpsc"

    @property
    def run_config(self) -> Path:
        """What `flwr run --run-config` is given."""
        return self.folder / "run.toml"

    def note(self, mark: str) -> None:
        """Stores the supervisor's mark: by it the next deployment here finds what a killed one left running."""
        (self.folder / _LOCK).write_text(mark, encoding="ascii")

    @property
    def runs(self) -> Path:
        """Folders of the runs."""
        return self.folder / _RUNS


@contextmanager
def claimed(folder: Path) -> Iterator[Layout]:
    """Makes the folder ready for one deployment at a time; what an earlier one left goes, but for the runs.

    Certificates, keys and the SuperLink's database are new each time: nothing of theirs outlives a deployment. What one
    that was killed left running is ended.

    Raises:
        RunError: another deployment is up there, or the folder holds something else.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise RunError(explain("--folder", str(folder), "is no folder", "name another"))
    if folder.exists() and any(folder.iterdir()) and not (folder / _LOCK).exists():
        raise RunError(explain("--folder", str(folder), "holds something else than a deployment", "name another"))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # keys lie here
    with (folder / _LOCK).open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                explain("--folder", str(folder), "a deployment is up there", "stop that one, or name another folder")
            ) from error
        lock.seek(0)
        if mark := lock.read():
            end(marked(MARK, mark))
        for entry in folder.iterdir():
            if entry.is_dir() and entry.name != _RUNS:
                shutil.rmtree(entry)
        layout = Layout(folder)
        layout.runs.mkdir(exist_ok=True)
        yield layout
