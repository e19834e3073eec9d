# SPDX-License-Identifier: Apache-2.0
"""The error tree, one class for each thing a caller would do about it, and the codes that cross the wire.

    FedcpscError
    ├── ConfigError        fix the run's YAML, an override, or a command-line value
    ├── DataError          fix the private data: its path, its columns, its partition
    ├── SiloError          the silo's owner acts
    │   ├── ManifestError    teacher file and manifest disagree, or are missing or corrupt
    │   ├── TeacherError     the teacher gave something that is not an answer (NaN, wrong shape)
    │   ├── PolicyError      the policy cannot be honoured as written
    │   └── LedgerError      the ledger is missing, of another population, tampered with, or not writable
    ├── ProtocolError      a message that does not follow the protocol
    │   └── VersionError     another major version of it: install the same one on both sides
    ├── FederationError    too few silos joined, or silos do not fit together
    ├── BankError          the answer bank on disk cannot be read or written
    ├── AuditError         an audit cannot say what was asked of it: give it more members, answers or models
    └── RunError           a run failed, or an existing run does not fit what was asked

Messages to people name the value, the constraint and the remedy (`explain`). Across the wire a silo sends a
`RefusalCode` and nothing else.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "AuditError",
    "BankError",
    "ConfigError",
    "DataError",
    "FedcpscError",
    "FederationError",
    "LedgerError",
    "ManifestError",
    "PolicyError",
    "ProtocolError",
    "RefusalCode",
    "Refused",
    "RunError",
    "SiloError",
    "TeacherError",
    "VersionError",
    "explain",
]


class FedcpscError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(FedcpscError):
    """A configuration value is unknown, of the wrong type or out of range."""


class DataError(FedcpscError):
    """Private or evaluation data cannot be read or partitioned as asked."""


class SiloError(FedcpscError):
    """Something in a silo's folder needs its owner."""


class ManifestError(SiloError):
    """Teacher file and manifest disagree, or one is missing or corrupt."""


class TeacherError(SiloError):
    """The teacher returned something that is not an answer."""


class PolicyError(SiloError):
    """The policy cannot be honoured as written."""


class LedgerError(SiloError):
    """The ledger is missing, belongs to another population, was tampered with, or cannot be written."""


class ProtocolError(FedcpscError):
    """A message does not follow the protocol."""


class VersionError(ProtocolError):
    """The other side speaks another major version of the protocol.

    Args:
        message: text for people.
        spoken: the version that the other side speaks, where it is known.
    """

    def __init__(self, message: str, spoken: str = "") -> None:
        super().__init__(message)
        self.spoken = spoken


class FederationError(FedcpscError):
    """Too few silos joined, or the silos do not fit together."""


class BankError(FedcpscError):
    """The answer bank on disk cannot be read or written."""


class AuditError(FedcpscError):
    """What an audit was given cannot carry the statement that was asked of it."""


class RunError(FedcpscError):
    """A run failed, or an existing run does not fit what was asked."""


class RefusalCode(StrEnum):
    """All that a silo ever says when it does not answer. The meaning is public, the reason stays inside."""

    MALFORMED = "malformed"  # not a well-formed message: dtype, shape, range, missing field
    VERSION = "version"  # protocol major version not spoken here
    TOO_MANY_IMAGES = "too_many_images"  # more images than one query may carry
    FORM = "form"  # this answer form is not offered
    BUDGET = "budget"  # the whole batch does not fit into what is left
    REPLAY = "replay"  # the query id was used before with another payload
    BUSY = "busy"  # the gatekeeper's queue is full; the same query may be sent again
    ACTION = "action"  # not `describe`, `answer` or `evaluate`
    RECIPE = "recipe"  # recipes are not taken here, this one is too large, or it makes other images; ask with images
    INTERNAL = "internal"  # the silo could not answer; what was charged stays charged
    NO_EVALUATION = "no_evaluation"  # no students are judged here
    STUDENT = "student"  # not a student that can be judged here: its network, sizes, classes or tensors; not charged
    OUT_OF_SERVICE = "out_of_service"  # the teacher failed lately; not charged, the same query may be sent again later


class Refused(FedcpscError):
    """Raised inside a silo to refuse a query; only `code` leaves it.

    Args:
        code: code that the server is shown.
        owner_note: reason for the owner's log; never sent.
    """

    def __init__(self, code: RefusalCode, owner_note: str = "") -> None:
        super().__init__(owner_note or code.value)
        self.code = code


def explain(name: str, value: object, constraint: str, remedy: str) -> str:
    """`name=value: constraint; remedy`, the house's one form of error message."""
    shown = repr(value)
    if len(shown) > 120:
        shown = shown[:117] + "..."
    return f"{name}={shown}: {constraint}; {remedy}"
