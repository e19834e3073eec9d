# SPDX-License-Identifier: Apache-2.0
"""How a new teacher takes an old one's place in a silo's folder, whenever the process dies.

    1. the new teacher's files are written to `making/`                the old silo is whole
    2. `making.json` says what is replaced by what                     from here on, the new teacher will stand
    3. its training is recorded in the ledger
    4. the old teacher, with its canaries, is copied to `past/`
    5. the files are renamed into place, the manifest last
    6. `making.json` and `making/` go                                  the new silo is whole

A crash before 2 leaves the old silo. A crash after it leaves a folder whose next take-up goes on with step 3, which
changes nothing where it was done: a training is neither lost, nor recorded twice, nor repeated, which for DP-SGD would
cost the population a second time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedcpsc.errors import ConfigError, LedgerError, ManifestError, explain
from fedcpsc.files import sync, write_whole
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
from fedcpsc.gatekeeper.releases import record_training
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.silos.folder import MAKING_FILE, PAST, STAGED, explained_silo_reads, explained_silo_writes
from fedcpsc.strict_json import parse_mapping
from fedcpsc.teachers.manifest import MANIFEST_FILE, WEIGHTS_FILE, Digest, Manifest, load_manifest, sha256_hex
from fedcpsc.training.canaries import CANARIES_FILE
from fedcpsc.typed_yaml import Strict, validate

__all__ = ["Replacement", "finish_interrupted"]

_MOVED = (CANARIES_FILE, POLICY_FILE, WEIGHTS_FILE, MANIFEST_FILE)  # the manifest last: it makes the silo whole


class _Making(Strict):
    """Content of `making.json`.

    Attributes:
        before: SHA-256 of the weights that lay there; None where none did.
        after: SHA-256 of the new weights.
        files: names of the files in `making/`.
    """

    format_version: Literal[1] = 1
    before: Digest | None
    after: Digest
    files: tuple[Literal["canaries.json", "policy.yaml", "teacher.safetensors", "manifest.json"], ...]


@dataclass(frozen=True)
class Replacement:
    """The replacement of the teacher in one silo's folder.

    Attributes:
        folder: path of the silo's folder, which exists.
    """

    folder: Path

    @property
    def staged(self) -> Path:
        """Where a new teacher is written before it takes the old one's place."""
        return self.folder / STAGED

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder to write a new teacher to; `commit` puts it in place.

        Raises:
            SiloError: where the folder cannot be written.
        """
        with explained_silo_writes(self.folder):
            if self.staged.exists():
                shutil.rmtree(self.staged)
            self.staged.mkdir(mode=0o700)
            yield self.staged

    def commit(self, ledger: Ledger) -> Path | None:
        """Puts the staged teacher in the place of the old one.

        Args:
            ledger: open, of the silo's population.

        Returns:
            The folder that keeps the old teacher, None where there was none.

        Raises:
            LedgerError: where the training cannot be recorded: the old silo then stands as before.
            SiloError: where the folder cannot be written.
        """
        with explained_silo_writes(self.folder):
            new = load_manifest(self.staged)
            names = tuple(name for name in _MOVED if (self.staged / name).exists())
            making = _Making(before=_digest(self.folder / WEIGHTS_FILE), after=new.weights_sha256, files=names)
            for name in names:
                sync(self.staged / name)
            sync(self.staged)
            write_whole(self.folder / MAKING_FILE, json.dumps(making.model_dump(mode="json")) + "\n", private=True)
            sync(self.folder / MAKING_FILE)
            sync(self.folder)
            try:
                record_training(new, ledger)
            except LedgerError:
                (self.folder / MAKING_FILE).unlink()
                shutil.rmtree(self.staged)
                raise
            return self._move(making)

    def interrupted(self) -> tuple[Manifest, Path] | None:
        """Manifest and policy's folder of the new teacher whose interrupted `commit` can be finished; None without one.

        What lies in `making/` without a `making.json` goes: nothing committed to it.

        Raises:
            ManifestError: where the folder holds weights that are neither the old teacher's nor the new one's.
            SiloError: where the folder cannot be read or written.
        """
        making = self._making()
        if making is None:
            with explained_silo_writes(self.folder):
                if self.staged.exists():
                    shutil.rmtree(self.staged)
            return None
        there = _digest(self.folder / WEIGHTS_FILE)
        if there not in (None, making.before, making.after):
            what = f"holds weights (SHA-256 {str(there)[:12]}...) that no training of this silo wrote"
            remedy = f"remove {MAKING_FILE} and {STAGED}/ where they are to stay, else move them out of the folder"
            raise ManifestError(explain("silo", str(self.folder), what, remedy))
        new = self._new(making)
        if new is None:
            return None
        return new, self.staged if (self.staged / POLICY_FILE).exists() else self.folder

    def finish(self, ledger: Ledger) -> Path | None:
        """Goes on with the `commit` that `interrupted` reported; as that.

        Raises:
            LedgerError: where the training cannot be recorded; it can be tried again.
            SiloError: where the folder cannot be read or written.
        """
        making = self._making()
        new = None if making is None else self._new(making)
        if making is None or new is None:
            return None
        record_training(new, ledger)
        with explained_silo_writes(self.folder):
            return self._move(making)

    def _move(self, making: _Making) -> Path | None:
        kept = self._keep(making)
        if CANARIES_FILE not in making.files:
            (self.folder / CANARIES_FILE).unlink(missing_ok=True)
        for name in _MOVED:
            if (self.staged / name).exists():
                os.replace(self.staged / name, self.folder / name)
        sync(self.folder)
        (self.folder / MAKING_FILE).unlink()
        shutil.rmtree(self.staged, ignore_errors=True)
        return kept

    def _keep(self, making: _Making) -> Path | None:
        """Copies the old teacher to `past/`, whole or not at all; None where there was none, or it was done before."""
        if making.before in (None, making.after) or _digest(self.folder / WEIGHTS_FILE) != making.before:
            return None
        kept = self.folder / PAST / f"teacher-{str(making.before)[:12]}"
        if kept.exists():
            return kept
        kept.parent.mkdir(exist_ok=True, mode=0o700)
        partial = kept.with_name(kept.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        for name in (WEIGHTS_FILE, MANIFEST_FILE, CANARIES_FILE):
            if (self.folder / name).exists():
                shutil.copy2(self.folder / name, partial / name)
                sync(partial / name)
        partial.rename(kept)
        sync(kept.parent)
        return kept

    def _making(self) -> _Making | None:
        path = self.folder / MAKING_FILE
        with explained_silo_reads(self.folder):
            if not path.exists():
                return None
            text = path.read_bytes()
        try:
            return validate(_Making, parse_mapping(text), str(path))
        except (ValueError, ConfigError) as error:
            remedy = "remove it where weights and manifest belong together, else restore the folder from a backup"
            raise ManifestError(explain(MAKING_FILE, str(path), f"cannot be read ({error})", remedy)) from error

    def _new(self, making: _Making) -> Manifest | None:
        """The new teacher's manifest, where that teacher lies whole in `making/` or, moved already, in place."""
        weights = self.staged if (self.staged / WEIGHTS_FILE).exists() else self.folder
        manifest = self.staged if (self.staged / MANIFEST_FILE).exists() else self.folder
        try:
            found = load_manifest(manifest)
        except ManifestError:
            return None
        return found if found.weights_sha256 == making.after == _digest(weights / WEIGHTS_FILE) else None


def finish_interrupted(folder: Path, progress: Callable[[str], None]) -> Path | None:
    """Puts a teacher in place whose way there was cut off; returns the folder that keeps the one before it.

    Args:
        folder: path of the silo's folder, which exists.
        progress: function that is called with what is being done, a line each time.

    Raises:
        SiloError, ManifestError, LedgerError: as `Replacement.interrupted` and `Replacement.finish`.
        PolicyError: where the policy that lies there cannot be read.
    """
    replacement = Replacement(folder)
    found = replacement.interrupted()
    if found is None:
        return None
    new, beside = found
    progress("putting the teacher in place whose training was interrupted")
    mark = mark_path(folder, load_policy(beside / POLICY_FILE))
    ledger = Ledger.open(folder / LEDGER_FILE, new.population, unit=new.unit, high_water_mark=mark)
    with contextlib.closing(ledger):
        return replacement.finish(ledger)


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    with explained_silo_reads(path.parent):
        return sha256_hex(path.read_bytes()) if path.exists() else None
