# SPDX-License-Identifier: Apache-2.0
"""An audit's folder: what is finished is stored at once, so that an interrupted audit goes on where it was.

config.yaml               every value of the configuration; another one is refused
stages/<name>.safetensors outputs of one batch of models, written whole or not at all
audit.json                the audit, when it is done; *.png beside it
private/                  pictures that show private images: the silo's owner's alone
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedcpsc.audit.earlier import completed
from fedcpsc.audit.figures import AuditFile
from fedcpsc.audit.plan import AuditConfig
from fedcpsc.errors import AuditError, explain
from fedcpsc.files import write_whole
from fedcpsc.runs.audit_file import AUDIT_CONFIG_FILE, AUDIT_FILE, read_audit_file
from fedcpsc.typed_yaml import read_yaml, save_config, validate

__all__ = ["Arrays", "AuditFolder", "Progress", "Warn", "no_warning", "read_audit"]

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Progress: TypeAlias = Callable[[int, int, str], None]
"""Function called with the number of stages done, the number of all stages, and what comes next."""

Warn: TypeAlias = Callable[[str], None]
"""Function called with each warning before an audit runs."""


def no_warning(_: str) -> None:
    """For callers that show none."""


class AuditFolder:
    """Begins an audit in a folder, or goes on with it.

    Args:
        folder: folder of the audit, created where missing.
        config: plan of the audit.
        resume: whether an audit may lie there already.
        run: folder of the finished run that is audited; None for an audit from scratch.

    Raises:
        AuditError: it holds an audit and `resume` is off, or one of another configuration or run.
    """

    def __init__(self, folder: Path, config: AuditConfig, *, resume: bool, run: str | None = None) -> None:
        self.folder = folder
        self._seconds: dict[str, float] = {}
        saved, of_run = folder / AUDIT_CONFIG_FILE, folder / "run.txt"
        if saved.exists():
            if not resume:
                remedy = "go on with --resume, or give the new audit another --out"
                raise AuditError(explain("audit", str(folder), "holds an audit already", remedy))
            before = validate(AuditConfig, read_yaml(saved), str(saved))
            other_run = (of_run.read_text(encoding="utf-8") if of_run.exists() else None) != run
            if _meaning(before) != _meaning(config) or other_run:
                remedy = "resume with the configuration it began with, or give another --out"
                raise AuditError(explain("audit", str(folder), "began with another configuration or run", remedy))
        try:
            (folder / "stages").mkdir(parents=True, exist_ok=True)
            if run is not None:
                write_whole(of_run, run)
            save_config(config, saved)
        except OSError as error:
            remedy = "give another folder with --out: the run's own may be read-only"
            raise AuditError(explain("audit", str(folder), f"cannot be written ({error.strerror})", remedy)) from error

    def finished(self) -> AuditFile | None:
        """The audit, where it is done.

        Raises:
            AuditError: where its file is damaged.
        """
        path = self.folder / AUDIT_FILE
        return read_audit(self.folder) if path.exists() else None

    @property
    def seconds(self) -> float:
        """Spent on all stages so far, earlier attempts counted in."""
        return sum(self._seconds.values())

    def stage(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """What `make` gives, or gave before the interruption.

        Raises:
            AuditError: where the stored stage is damaged.
        """
        path = self.folder / "stages" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.safetensors"
        if not path.exists():
            started = time.monotonic()
            arrays = {key: np.ascontiguousarray(array) for key, array in make().items()}
            arrays["seconds"] = np.array([time.monotonic() - started])
            partial = path.with_name(path.name + ".partial")
            save_file(arrays, partial)
            partial.replace(path)
        try:
            found = load_file(path)
        except (SafetensorError, OSError) as error:
            remedy = "delete that file: the stage is computed again"
            raise AuditError(explain("stage", str(path), f"is damaged ({error})", remedy)) from error
        self._seconds[name] = float(found.pop("seconds")[0])
        return found

    def finish(self, audit: AuditFile) -> AuditFile:
        """Writes `audit.json` and returns what reading it gives."""
        path = self.folder / AUDIT_FILE
        write_whole(path, json.dumps(audit, indent=1, allow_nan=False) + "\n")
        return read_audit(self.folder)


def read_audit(folder: Path) -> AuditFile:
    """The finished audit in a folder; an earlier version's is completed (`earlier`).

    Args:
        folder: folder of the audit.

    Raises:
        AuditError: where the file is missing, damaged, or of another schema.
    """
    return completed(cast(AuditFile, read_audit_file(folder)))


def _meaning(config: AuditConfig) -> dict[str, Any]:
    """All but what changes only speed and place."""
    return config.model_dump(mode="json", exclude={"threads", "name", "root"})
