# SPDX-License-Identifier: Apache-2.0
"""What the command line does with an exception that no command expected: one line, and the traceback in a file."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedcpsc.commands.exit_codes import code_of, said
from fedcpsc.errors import FedcpscError, explain
from fedcpsc.version import version

__all__ = ["DEBUG_VARIABLE", "last_resort"]

DEBUG_VARIABLE = "FEDCPSC_DEBUG"

_REMEDIES = {
    errno.EROFS: "mount it for writing, or work on a copy",
    errno.EACCES: "fix the permissions, or run as a user who has them",
    errno.EPERM: "fix the permissions, or run as a user who has them",
    errno.ENOSPC: "free space, then try again",
    errno.EDQUOT: "free space, then try again",
}
_LONGEST = 200  # characters of a foreign message that the line shows


@contextmanager
def last_resort() -> Iterator[None]:
    """Ends the process with an exit code and one line on stderr, whatever is raised inside.

    This package's errors keep their words and codes; what the disk refuses is explained; a reader that has gone away
    (`| head`) is passed over in silence. Of anything else the full traceback goes into a new file that its owner alone
    can read (mode 0600), and the line names that file. With $FEDCPSC_DEBUG set the exception is raised on as it is.

    Raises:
        SystemExit: in place of every exception but KeyboardInterrupt.
    """
    try:
        yield
    except FedcpscError as error:
        _end(said(error), code_of(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor when the interpreter flushes at its end
        raise SystemExit(1) from None
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            place = error.filename if error.filename is not None else "the disk"
            _end("file error: " + explain("path", str(place), str(error.strerror), _REMEDIES[error.errno]), 1)
        _end(_unexpected(error), 1)


def _end(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    raise SystemExit(code) from None


def _unexpected(error: Exception) -> str:
    shown = " ".join(f"{type(error).__name__}: {error}".split())
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."
    try:
        where = f"the full traceback is in {_written(error)}"
    except OSError as failed:
        where = f"its traceback could not be written ({failed.strerror}): set {DEBUG_VARIABLE}=1 to see it"
    return f"unexpected error: {shown}; {where}"


def _written(error: Exception) -> str:
    """The path of a new file with the traceback; `mkstemp` gives it mode 0600."""
    import platform  # noqa: PLC0415 - these four for this error alone
    import shlex  # noqa: PLC0415
    import tempfile  # noqa: PLC0415
    import traceback  # noqa: PLC0415

    descriptor, path = tempfile.mkstemp(prefix="fedcpsc-", suffix=".traceback")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"fedcpsc {version()}, Python {platform.python_version()}, {platform.platform()}\n")
        file.write(f"{shlex.join(sys.argv)}\n\n")
        file.write("".join(traceback.format_exception(error)))
    return path
