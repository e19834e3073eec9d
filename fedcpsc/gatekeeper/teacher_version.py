# SPDX-License-Identifier: Apache-2.0
"""Which of a silo's teachers answers, as a server may know it: a new one's answers are not taken for an old one's.

A hash of the weights would tell too much: whoever can guess the data can train on the guess and compare. What is told
is a hash of the ledger's first row, which is older than all answers, and of a number: that of the teacher among those
that the ledger has charged for, in the order in which they came. It shows that a teacher was replaced, or that an
earlier one has come back, and nothing else of either.

Where answers are differentially private it is told of teachers trained by DP-SGD alone, whose weights are themselves
covered, and drawn anew by every training. A teacher of shards is made anew just where its data changed: to tell that it
was would not be covered by its mechanism.
"""

from __future__ import annotations

from hashlib import sha256

from fedcpsc.gatekeeper.guarantee import Guarantee
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.ledger.ledger import Ledger

__all__ = ["teacher_version"]

_COVERED = "dp_sgd"  # the mechanism kind whose guarantee holds for the weights


def teacher_version(model: str, ledger: Ledger, policy: Policy, guarantee: Guarantee) -> str | None:
    """The version of the teacher that a silo now has, 16 hexadecimal digits; None where it is not told.

    Args:
        model: version of the teacher in the ledger.
        ledger: open ledger of the teacher's population.
        policy: policy of the silo.
        guarantee: guarantee of the silo's answers.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    if guarantee.mechanism.dp and policy.mechanism.kind != _COVERED:
        return None
    begun, models = "", dict[str, None]()
    for row in ledger.export():
        begun = begun or str(row["hash"])
        if row["model"] and row["kind"] in ("charged", "answered"):
            models[row["model"]] = None
    known = list(models)
    number = known.index(model) if model in models else len(known)
    return sha256(f"{begun}/teacher/{number}".encode()).hexdigest()[:16]
