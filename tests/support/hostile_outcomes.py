# SPDX-License-Identifier: Apache-2.0
"""What must have become of a hostile ClientApp's tries (`tests/gatekeeper/hostile_app.py`)."""

from __future__ import annotations

from typing import Any

from fedcpsc.errors import RefusalCode

Found = dict[str, dict[str, Any]]


def nothing_was_touched(found: Found) -> None:
    """Of the attacks `steal` and `sabotage`."""
    stolen = found["steal"]
    assert stolen.pop("read the ledger") == "OperationalError"
    assert stolen.pop("open the silo") == "ManifestError"
    assert set(stolen.values()) | set(found["sabotage"].values()) == {"PermissionError"}


def refused_beyond_the_policy(found: Found) -> int:
    """Of the attacks `ask`, `malform`, `gigabyte` and `flood`; returns how many answers the flood got."""
    told = found["ask"]
    assert told.pop("first") == "Answer"
    assert told.pop("the same again is the same") is True
    assert told.pop("too many images") == RefusalCode.TOO_MANY_IMAGES
    assert told.pop("another form") == RefusalCode.FORM
    assert told.pop("another version") == RefusalCode.VERSION
    assert told.pop("other images under a used id") == RefusalCode.REPLAY
    assert len(told) == 10
    assert set(told.values()) == {RefusalCode.MALFORMED}
    assert set(found["malform"]) <= {RefusalCode.MALFORMED, "400", "404", "405", "200", "nothing"}
    assert found["malform"][RefusalCode.MALFORMED] >= 109
    assert found["malform"]["200"] == 1, "the health of the service is all that is told without a message"
    assert set(found["gigabyte"].values()) == {RefusalCode.TOO_MANY_IMAGES}
    flood = found["flood"]
    assert flood.pop("connections") == 400
    rest = flood.pop("rest")
    assert flood.pop("last") == RefusalCode.BUDGET
    assert sum(flood.values()) == 120
    answers = 10 * flood.pop("Answer", 0) + rest
    # how many queries of the flood came through hangs on the machine's speed; `internal` says its own client, where the
    # gatekeeper cut it off as one connection of too many
    assert set(flood) <= {RefusalCode.BUDGET, RefusalCode.BUSY, RefusalCode.INTERNAL}
    return answers
