# SPDX-License-Identifier: Apache-2.0
"""A silo's folder on the disk: what lies there whole, and what may be put there.

    teacher.safetensors  manifest.json  canaries.json  policy.yaml    the silo
    ledger.sqlite                                                     its population's record, see `ledger.py`
    past/teacher-<first 12 of weights_sha256>/                        teachers that were replaced, see `replacing.py`
    making/  making.json                                              a new teacher on its way in, likewise

Weights that lie there without a manifest that fits them, and without a `making.json`, are their owner's: they are
refused, never replaced.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedcpsc.errors import ManifestError, SiloError, explain
from fedcpsc.files import sync
from fedcpsc.strict_json import parse_json
from fedcpsc.teachers.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest, load_manifest, read_weights

__all__ = [
    "MAKING_FILE",
    "PAST",
    "STAGED",
    "check_free",
    "check_writable",
    "explained_silo_reads",
    "explained_silo_writes",
    "made_alone",
    "staged_silo",
    "standing_teacher",
]

MAKING_FILE, STAGED, PAST = "making.json", "making", "past"


def standing_teacher(folder: Path) -> Manifest | None:
    """The manifest of the teacher that lies whole in a silo's folder; None where one may be made.

    One may be made where neither weights nor manifest lie there, where only the weights are missing of a teacher that
    this project trained, and where putting a new teacher in place was interrupted.

    Raises:
        ManifestError: where weights and manifest do not belong together, or must be migrated: what lies there is not
            overwritten.
        SiloError: where the folder cannot be read.
    """
    with explained_silo_reads(folder):
        there = [name for name in (WEIGHTS_FILE, MANIFEST_FILE) if (folder / name).exists()]
        interrupted = (folder / MAKING_FILE).exists()
    if not there:
        return None
    if MANIFEST_FILE in there and _stated_version(folder / MANIFEST_FILE) == 1:
        return load_manifest(folder)  # raises, naming the command that migrates
    try:
        manifest = load_manifest(folder)
        if manifest.origin == "trained" and WEIGHTS_FILE not in there:
            return None
        read_weights(folder, manifest)
    except ManifestError as error:
        if interrupted:
            return None
        lie = " and ".join(there) + (" lies" if len(there) == 1 else " lie")
        reason = str(error).rpartition("; ")[0]
        remedy = (
            f"restore {WEIGHTS_FILE} and {MANIFEST_FILE} from a backup; or move what is left of them out of the folder,"
            " but not the ledger, and a teacher is trained anew"
        )
        constraint = f"{lie} there and no whole teacher, so nothing is overwritten ({reason})"
        raise ManifestError(explain("silo", str(folder), constraint, remedy)) from error
    return manifest


def check_writable(folder: Path) -> None:
    """Does nothing where this user may write in a silo's folder: without its ledger, no silo answers.

    Raises:
        SiloError: where the folder or its file system is read-only.
    """
    if not os.access(folder, os.W_OK):
        remedy = "make the folder and its file system writable for this user: the ledger is written in it"
        raise SiloError(explain("silo", str(folder), "is read-only here", remedy))


def check_free(folder: Path) -> None:
    """Does nothing where a silo may be made there.

    Raises:
        SiloError: where something is there.
    """
    try:
        there = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise SiloError(explain("silo", str(folder), "is a file", "name a new folder")) from error
    except OSError as error:
        raise SiloError(explain("silo", str(folder), f"cannot be read ({error.strerror})", "check the path")) from error
    if there:
        shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        remedy = "name a new or empty folder"
        raise SiloError(explain("silo", str(folder), f"holds {shown}, and nothing is overwritten", remedy))


@contextmanager
def made_alone(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Keeps two processes from making one silo at once: the later one waits, and then finds a teacher there.

    Args:
        folder: path of the silo's folder, which is there. It is locked itself, so that no file more lies in it; on file
            systems that lock no folders nobody waits.
        tell: function that is called with a line where another process has to be waited for.

    Raises:
        SiloError: where the folder cannot be read.
    """
    with explained_silo_reads(folder):
        held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process is making this silo: waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    finally:
        os.close(held)


@contextmanager
def explained_silo_writes(folder: Path) -> Iterator[None]:
    """Turns what goes wrong while a silo's folder is written into words for its owner.

    Raises:
        SiloError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        remedy = "free space, or make the folder and its file system writable for this user"
        raise SiloError(explain("silo", str(folder), f"cannot be written ({error.strerror})", remedy)) from error


@contextmanager
def explained_silo_reads(folder: Path) -> Iterator[None]:
    """Turns what goes wrong while a silo's folder is read into words for its owner.

    Raises:
        SiloError: it cannot be read.
    """
    try:
        yield
    except OSError as error:
        remedy = "check the path, and that this user may read it"
        raise SiloError(explain("silo", str(folder), f"cannot be read ({error.strerror})", remedy)) from error


@contextmanager
def staged_silo(folder: Path, mark: Path) -> Iterator[Path]:
    """A folder to write the silo to, which takes its place at the end of the block; where that fails, nothing stays.

    Args:
        folder: path of the silo's folder, which is free (`check_free`).
        mark: path of the ledger's high-water mark, absolute or relative to the silo's folder.

    Raises:
        SiloError: where it cannot be written.
    """
    with ExitStack() as undo, explained_silo_writes(folder):
        home = next(parent for parent in folder.resolve().parents if parent.is_dir())
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=home))
        undo.callback(shutil.rmtree, staging, ignore_errors=True)
        if not (staging / mark).is_relative_to(staging) and not mark.exists():
            undo.callback(mark.unlink, missing_ok=True)
        yield staging
        for path in (*staging.iterdir(), staging):
            path.chmod(0o700 if path.is_dir() else 0o600)
            sync(path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(staging, folder)  # takes the place of an empty folder, and of nothing else
        undo.pop_all()
        sync(folder.parent)


def _stated_version(manifest: Path) -> object:
    """What a manifest says of its version; None where it says nothing."""
    try:
        tree = parse_json(manifest.read_bytes())
    except (OSError, ValueError):
        return None
    return tree.get("format_version") if isinstance(tree, dict) else None
