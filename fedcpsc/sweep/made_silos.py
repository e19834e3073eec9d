# SPDX-License-Identifier: Apache-2.0
"""Silos of a sweep: made once for all runs whose silos are alike, and copied for each, with ledgers of their own.

Alike are silos of equal data, silos, teachers and seed, made on the same device with as many threads. What a run spent
changes nothing: the silos that were made are never asked.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.errors import RunError, explain
from fedcpsc.files import explained_writes, write_whole
from fedcpsc.runs.layout import LOCK_FILE
from fedcpsc.strict_json import format_json, parse_mapping
from fedcpsc.sweep.layout import MADE_FILE

__all__ = ["copy_made", "make_once", "silos_key"]


def silos_key(config: RunConfig) -> str:
    """16 hex digits, equal for runs whose silos are alike.

    Args:
        config: configuration of the run; where its silos lie (`silos.root`) does not matter.
    """
    made_from = {
        "data": config.data.model_dump(mode="json"),
        "silos": config.silos.model_dump(mode="json", exclude={"root"}),
        "teachers": config.teachers.model_dump(mode="json"),
        "runtime": config.runtime.model_dump(mode="json", include={"device", "threads"}),
        "seed": config.seed,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def make_once(config: RunConfig, folder: Path, tell: Callable[[str], None]) -> None:
    """Makes the silos in `folder`, or looks whether those that lie there are still the configuration's.

    Args:
        config: configuration of a run that takes copies of them.
        folder: folder of the silos' folders.
        tell: function called with one line for each silo.

    Raises:
        RunError: other silos were made here before: the data changed since.
        FedcpscError: as `make_silos`.
    """
    from fedcpsc.silos.make import make_silos  # noqa: PLC0415 - brings torch
    from fedcpsc.teachers.manifest import load_manifest  # noqa: PLC0415

    with _one_maker(folder):
        before = _read(folder / MADE_FILE)
        for report in make_silos(config, folder, tell):
            tell(str(report))
        made = {str(silo): load_manifest(folder / str(silo)).weights_sha256 for silo in range(config.silos.count)}
        if before is None:
            with explained_writes(folder):
                write_whole(folder / MADE_FILE, format_json(made, folder / MADE_FILE) + "\n")
    if before not in (None, made):
        constraint = "holds other teachers than earlier runs of this sweep were given: the data changed since"
        remedy = "begin the sweep anew with --overwrite, or restore the data"
        raise RunError(explain("silos", str(folder), constraint, remedy))


def copy_made(made: Path, silos: Path, count: int) -> None:
    """Gives a run its own copies of silos that were made; those that are there already stay as they are.

    Args:
        made: folder of the silos' folders as they were made.
        silos: folder of the run's silos' folders.
        count: number of silos.

    Raises:
        SiloError, ManifestError, LedgerError, PolicyError: as `replicate`.
    """
    from fedcpsc.silos.replica import replicate  # noqa: PLC0415 - brings torch

    silos.mkdir(parents=True, exist_ok=True, mode=0o700)
    for silo in range(count):
        replicate(made / str(silo), silos / str(silo))


@contextmanager
def _one_maker(folder: Path) -> Iterator[None]:
    """Waits for whoever makes silos in the folder just now: another sweep may keep its silos there too."""
    with explained_writes(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / LOCK_FILE).open("w", encoding="ascii")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, object] | None:
    try:
        return parse_mapping(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        remedy = "begin the sweep anew with --overwrite"
        raise RunError(explain("silos", str(path), f"cannot be read ({error})", remedy)) from error
