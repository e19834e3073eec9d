# SPDX-License-Identifier: Apache-2.0
"""descriptions.json: what each silo said of itself when the run began, by which a resumed run knows it again.

What a silo says of `share_answers` may change: its latest word holds, for all its answers in the bank.

The file holds a schema number and, by the silo's name, the fields of its description as they cross the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from fedcpsc.errors import ProtocolError, RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.protocol.codec import fields_of, from_fields
from fedcpsc.protocol.messages import Description
from fedcpsc.runs.layout import DESCRIPTIONS_FILE
from fedcpsc.runs.result import check_schema
from fedcpsc.strict_json import format_json, parse_mapping

__all__ = ["note_sharing", "read_descriptions", "write_descriptions"]

_SCHEMA: Final = 1


def write_descriptions(run_dir: Path, descriptions: Mapping[str, Description]) -> None:
    """Writes the file, for its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    path = run_dir / DESCRIPTIONS_FILE
    silos = {silo: fields_of(description)[0] for silo, description in descriptions.items()}
    write_whole(path, format_json({"schema": _SCHEMA, "silos": silos}, path, indent=1) + "\n", private=True)


def note_sharing(run_dir: Path, joined: Mapping[str, Description]) -> None:
    """Takes over what silos that joined again say of `share_answers` now; all else stays as it was when the run began.

    Args:
        run_dir: folder of the run.
        joined: descriptions by the silos' names; of silos that the file does not name nothing is taken.

    Raises:
        RunError: the file is damaged.
        OSError: it cannot be written.
    """
    before = read_descriptions(run_dir) or {}
    now = {
        silo: replace(said, share_answers=joined[silo].share_answers) if silo in joined else said
        for silo, said in before.items()
    }
    if now != before:
        write_descriptions(run_dir, now)


def read_descriptions(run_dir: Path) -> dict[str, Description] | None:
    """The descriptions by the silos' names; None where the run left none, as those of earlier versions.

    Raises:
        RunError: the file is damaged, cannot be read, or was written by a newer version.
    """
    path = run_dir / DESCRIPTIONS_FILE
    try:
        tree = parse_mapping(path.read_bytes())
        check_schema(tree, path, _SCHEMA)
        read = {silo: from_fields(fields, {}) for silo, fields in tree["silos"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ProtocolError) as error:
        remedy = f"restore it, or delete {path.name}: the silos are then taken as they describe themselves now"
        raise RunError(explain("run", str(path), f"is damaged or cannot be read ({error!r})", remedy)) from error
    return {silo: said for silo, said in read.items() if isinstance(said, Description)}
