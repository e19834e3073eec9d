# SPDX-License-Identifier: Apache-2.0
"""Which real pictures a run's query images come from, where they do: then it is no longer free of all data.

A run's folder has a file of the server's own pictures, so that a resumed run draws from the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from fedcpsc.errors import RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.runs.layout import PUBLIC_FILE
from fedcpsc.strict_json import format_json, parse_mapping

__all__ = ["PublicNote", "RealPictures", "keep_public", "not_free_of_data", "read_public"]


class RealPictures(TypedDict):
    """Real pictures that some query images come from.

    Attributes:
        kind: source that draws from them: a prior, or the server's own pictures (`synthesis.public`).
        name: name of the prior; last part of the path of the server's own.
        what: what they are, a noun phrase.
        pictures: number of them; None where a prior says what they are and not how many.
        sha256: digest of the list of the server's own pictures; None of a prior's, which its package's version fixes.
        images: number of the bank's images that come from them; None where the bank does not note origins.
    """

    kind: Literal["prior", "public"]
    name: str
    what: str
    pictures: int | None
    sha256: str | None
    images: int | None


class PublicNote(TypedDict):
    """Content of `public.json`.

    Attributes:
        name: last part of the pictures' path.
        pictures: number of them.
        sha256: digest of their list.
        reading: table of what was read, line by line.
    """

    name: str
    pictures: int
    sha256: str
    reading: list[str]


def not_free_of_data(real: Sequence[RealPictures], of: int) -> str:
    """One sentence about a run's real pictures; empty where it has none.

    Args:
        real: the real pictures.
        of: number of the bank's images.
    """
    if not real:
        return ""
    each = [f"{_count(one, of)} from {one['what']}" for one in real]
    return f"not free of all data: {'; '.join(each)}"


def _count(one: RealPictures, of: int) -> str:
    return "query images" if one["images"] is None else f"{one['images']:,} of {of:,} query images"


def keep_public(run_dir: Path, name: str, pictures: int, sha256: str, reading: Sequence[str] = ()) -> None:
    """Notes the server's own pictures in a run's folder, or checks that they are those that are noted there.

    Args:
        run_dir: folder of the run.
        name: last part of the pictures' path.
        pictures: number of them.
        sha256: digest of their list.
        reading: table of what was read, line by line.

    Raises:
        RunError: the run began with others, or the note is damaged.
    """
    path, before = run_dir / PUBLIC_FILE, read_public(run_dir)
    if before is None:
        note: PublicNote = {"name": name, "pictures": pictures, "sha256": sha256, "reading": list(reading)}
        write_whole(path, format_json(note, path, indent=2) + "\n")
    elif (before["pictures"], before["sha256"]) != (pictures, sha256):
        constraint = f"the run began with other public pictures ({before['pictures']} of {before['name']})"
        remedy = "restore the pictures as they were, or begin a new run"
        raise RunError(explain("synthesis.public", f"{name}, {pictures} pictures", constraint, remedy))


def read_public(run_dir: Path) -> PublicNote | None:
    """The note of the server's own pictures in a run's folder; None where there is none.

    Raises:
        RunError: it is damaged.
    """
    path = run_dir / PUBLIC_FILE
    try:
        return TypeAdapter(PublicNote).validate_python(parse_mapping(path.read_bytes()), strict=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # pydantic's errors are ValueErrors
        reason = " ".join(str(error).split())[:200]
        remedy = "restore the file, or delete it where you know that the pictures are the same"
        raise RunError(explain("run", str(path), f"is damaged ({reason})", remedy)) from error
