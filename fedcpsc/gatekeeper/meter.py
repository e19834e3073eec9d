# SPDX-License-Identifier: Apache-2.0
"""What a gatekeeper reports of its own work to whoever counts; by default nobody does."""

from __future__ import annotations

from typing import Protocol

from fedcpsc.protocol.messages import Message

__all__ = ["Meter", "Unmetered"]


class Meter(Protocol):
    """Counts. Called from several threads; it never gets what a teacher said, except as the reply that is sent."""

    def replied(self, reply: Message, seconds: float) -> None:
        """A reply is sent, `seconds` after its request came."""
        ...

    def answered(self, images: int) -> None:
        """So many images were answered and charged."""
        ...

    def replayed(self) -> None:
        """The reply to come is one that was stored before, sent again without charge."""
        ...

    def wrote_ledger(self, seconds: float) -> None:
        """The ledger has taken a charge or a reply, on the disk, in so many seconds."""
        ...


class Unmetered:
    """Counts nothing."""

    def replied(self, reply: Message, seconds: float) -> None:
        """Nothing."""

    def answered(self, images: int) -> None:
        """Nothing."""

    def replayed(self) -> None:
        """Nothing."""

    def wrote_ledger(self, seconds: float) -> None:
        """Nothing."""
