# SPDX-License-Identifier: Apache-2.0
"""What messages of every kind share: the version of the protocol, bounds, and the claim of privacy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedcpsc.errors import ProtocolError, explain

__all__ = ["MAX_CLASSES", "PROTOCOL_VERSION", "TEXT_LIMIT", "DpClaim", "check_classes", "check_query_id"]

PROTOCOL_VERSION = "1.5"  # major.minor: another major is refused, another minor is tolerated
MAX_CLASSES = 2**16  # class indices travel as uint16
TEXT_LIMIT = 200  # characters of any text in a message

_QUERY_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class DpClaim:
    """What a silo claims of its answers' privacy; `dp=False` claims nothing.

    Attributes:
        dp: whether the answers are differentially private.
        epsilon: epsilon that all the silo ever releases of its population stays within, as its policy promises, > 0;
            None where `dp` is False.
        delta: delta of the same guarantee, in (0, 1).
        unit: what is protected, e.g. "record".
        relation: neighbouring relation, e.g. "add_remove", "replace_one".
        mechanism: name of the mechanism, e.g. "dp_sgd".
    """

    dp: bool = False
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None
    relation: str | None = None
    mechanism: str = "none"


def check_query_id(query_id: str) -> None:
    """Does nothing for 32 lower-case hex digits.

    Raises:
        ProtocolError: for anything else.
    """
    if not _QUERY_ID.fullmatch(query_id):
        raise ProtocolError(explain("query_id", query_id, "must be 32 lower-case hex digits", "use uuid.uuid4().hex"))


def check_classes(classes: int) -> None:
    """Does nothing for a number of classes in [2, 2^16].

    Raises:
        ProtocolError: for another.
    """
    if not 2 <= classes <= MAX_CLASSES:
        raise ProtocolError(explain("classes", classes, f"must be in [2, {MAX_CLASSES}]", "check the silo"))
