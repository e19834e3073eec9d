# SPDX-License-Identifier: Apache-2.0
"""Who else may read or change a silo's folder, from its mode bits alone: access lists are not looked at."""

from __future__ import annotations

import stat
from pathlib import Path

__all__ = ["loose_rights"]

_SHOWN = 5


def loose_rights(folder: Path) -> list[str]:
    """Sentences for the owner: what other users of the machine may read or change in the silo's folder; often none.

    Args:
        folder: the silo's folder.
    """
    mode = folder.stat().st_mode
    found = []
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        found.append(
            f"the folder {folder} (mode {stat.S_IMODE(mode):04o}) can be written by others: whoever can may replace the"
            f" policy or the ledger; chmod 0700 {folder}"
        )
    elif mode & (stat.S_IROTH | stat.S_IXOTH):
        found.append(
            f"the folder {folder} (mode {stat.S_IMODE(mode):04o}) is open to every user of the machine; chmod 0700"
            f" {folder}"
        )
    others = stat.S_IWOTH | stat.S_IROTH if mode & stat.S_IXOTH else 0
    group = stat.S_IWGRP if mode & stat.S_IXGRP else 0
    loose = sorted(path.name for path in folder.iterdir() if path.is_file() and path.stat().st_mode & (others | group))
    if loose:
        shown = ", ".join(loose[:_SHOWN]) + (f" and {len(loose) - _SHOWN} more" if len(loose) > _SHOWN else "")
        found.append(
            f"other users may read or change {shown}; chmod 0600 them, or close the folder: chmod 0700 {folder}"
        )
    return found
