# SPDX-License-Identifier: Apache-2.0
"""Which real pictures a run's query images come from, where they do: then it is no longer free of all data.

A run's folder has a file of the server's own pictures, so that a resumed run draws from the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from fedcpsc.errors import RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.runs.layout import PUBLIC_FILE
from fedcpsc.strict_json import format_json, parse_mapping

__all__ = ["RealPictures", "keep_public", "not_free_of_data"]


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


def keep_public(run_dir: Path, name: str, pictures: int, sha256: str) -> None:
    """Notes the server's own pictures in a run's folder, or checks that they are those that are noted there.

    Args:
        run_dir: folder of the run.
        name: last part of the pictures' path.
        pictures: number of them.
        sha256: digest of their list.

    Raises:
        RunError: the run began with others, or the note is damaged.
    """
    path = run_dir / PUBLIC_FILE
    now = {"name": name, "pictures": pictures, "sha256": sha256}
    if not path.exists():
        write_whole(path, format_json(now, path, indent=2) + "\n")
        return
    try:
        before = parse_mapping(path.read_bytes())
        before = {key: before[key] for key in now}
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "restore the file, or delete it where you know that the pictures are the same"
        raise RunError(explain("run", str(path), f"is damaged ({error!r})", remedy)) from error
    if (before["pictures"], before["sha256"]) != (pictures, sha256):
        constraint = f"the run began with other public pictures ({before['pictures']} of {before['name']})"
        remedy = "restore the pictures as they were, or begin a new run"
        raise RunError(explain("synthesis.public", f"{name}, {pictures} pictures", constraint, remedy))
