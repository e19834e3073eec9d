# SPDX-License-Identifier: Apache-2.0
"""What a policy's `share_answers` means, in plain words for the silo's owner, and what it cannot prevent."""

from __future__ import annotations

from fedcpsc.gatekeeper.policy import Policy

__all__ = ["sharing_meaning", "sharing_warnings"]


def sharing_meaning(policy: Policy, *, dp: bool) -> str:
    """Whether answers may be handed on, and what follows from it, in sentences.

    Args:
        policy: policy of the silo.
        dp: whether its answers are differentially private.
    """
    if not policy.share_answers:
        return (
            "The server is asked to hand the answers on to nobody (share_answers: false), and fedcpsc writes them into"
            " no data set. Nothing enforces it: whoever has received an answer can copy it. The student, which is"
            " fitted to the answers, may be given to others."
        )
    bound = "what was said of epsilon holds for all of them" if dp else "nothing bounds that either"
    return (
        "The server may hand the answers on to anybody, with the images and with targets computed from them"
        " (share_answers: true). Whoever gets them can learn from them what the server could, also in years to come:"
        f" {bound}. What was handed on cannot be called back."
    )


def sharing_warnings(policy: Policy, *, dp: bool) -> list[str]:
    """What to think twice about before answers are handed on; nothing where they are not.

    Args:
        policy: policy of the silo.
        dp: whether its answers are differentially private.
    """
    found = []
    if policy.share_answers and not dp:
        found.append("share_answers without differential privacy: anybody may then find out who was in the data")
    if policy.share_answers and policy.share_class_counts:
        found.append("share_answers: class counts that weigh the targets can be estimated from what is handed on")
    return found
