# SPDX-License-Identifier: Apache-2.0
"""What a manifest says of its teacher's training, checked before any mechanism builds on it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from fedcpsc.errors import PolicyError, explain
from fedcpsc.ledger.chain import Row
from fedcpsc.teachers.manifest import Digest, Manifest
from fedcpsc.typed_yaml import Strict

if TYPE_CHECKING:
    from fedcpsc.privacy.accounting import History

__all__ = ["DpSgdProof", "ShardsProof", "Unit", "histories_of", "history_in", "proof_of"]

Unit: TypeAlias = Literal["record", "person"]
"""What a guarantee protects: one record, or a person with all its records."""

Share = Annotated[float, Field(gt=0, lt=1)]
Step = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0, le=1)], Annotated[int, Field(ge=1)]]


class DpSgdProof(Strict):
    """The teacher was trained by DP-SGD with Poisson sampling. All fields follow from the configuration alone.

    Attributes:
        epsilon: epsilon that the training was planned for; what the history proves is at most this.
        delta: delta of the same guarantee.
        unit: what one record more or less means: a record, or a person with all its records.
        records: public number of units that the training was planned for; the true number stands nowhere.
        noise_source: origin of noise and coins (`privacy.randomness.NOISE_SOURCE`).
        history: state of the accountant: (noise multiplier, sample rate, steps).
        public_weights: SHA-256 of the file of weights that the training started from; None where it started at random.
            The owner says that they are public: the guarantee covers none of the images that they were made with.
    """

    kind: Literal["dp_sgd"] = "dp_sgd"
    epsilon: Annotated[float, Field(gt=0)]
    delta: Share
    relation: Literal["add_remove"] = "add_remove"
    unit: Unit = "record"
    records: Annotated[int, Field(ge=1)]
    noise_source: str
    history: tuple[Step, ...] = Field(min_length=1)
    public_weights: Digest | None = None


class ShardsProof(Strict):
    """K teachers, each trained on the units that a keyed hash sent to it and on nothing else private.

    Attributes:
        shards: number K of teachers.
        assignment: way of dealing units; only the keyed hash of the unit alone is a proof.
        unit: what is dealt as a whole: a record, or a person with all its records (the hash is of the person's id).
    """

    kind: Literal["shards"] = "shards"
    shards: Annotated[int, Field(ge=2)]
    assignment: Literal["hmac-sha256"] = "hmac-sha256"
    relation: Literal["add_remove"] = "add_remove"
    unit: Unit = "record"


Proof: TypeAlias = Annotated[DpSgdProof | ShardsProof, Field(discriminator="kind")]
_PROOF: TypeAdapter[DpSgdProof | ShardsProof] = TypeAdapter(Proof)


def proof_of(manifest: Manifest) -> DpSgdProof | ShardsProof | None:
    """The checked proof, None where the training claims nothing.

    Raises:
        PolicyError: where the manifest's claim is incomplete, or rests on noise that can be drawn again.
    """
    if manifest.privacy is None:
        return None
    if manifest.privacy.get("kind") == "dp_sgd":
        _check_noise(manifest.privacy.get("noise_source"))
    try:
        proof = _PROOF.validate_python(manifest.privacy)
    except ValidationError as error:
        faults = ", ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise PolicyError(
            explain("manifest.privacy", manifest.privacy, f"is no proof ({faults})", "train the teacher again")
        ) from error
    return proof


def _check_noise(source: object) -> None:
    """Refuses a DP-SGD teacher whose noise others could draw again."""
    from fedcpsc.privacy.randomness import NOISE_SOURCE  # noqa: PLC0415 - brings scipy

    if source == NOISE_SOURCE:
        return
    if source is None:
        constraint = (
            "is missing: the noise came from a generator with a 32-bit seed, which can be searched and the noise then"
            " subtracted, so that the claimed epsilon does not hold"
        )
    else:
        constraint = f"is unknown here, which knows {NOISE_SOURCE}"
    remedy = "train the teacher again; the new training composes in the ledger with the old one"
    raise PolicyError(explain("manifest.privacy.noise_source", source, constraint, remedy))


def history_in(manifest: Manifest) -> History | None:
    """The accountant's state of a DP-SGD training, also where its claim is lost; None where there is none."""
    steps = (manifest.privacy or {}).get("history")
    return [(float(noise), float(rate), int(count)) for noise, rate, count in steps] if steps else None


def histories_of(releases: Iterable[Row]) -> dict[str, History]:
    """Accountant's states of the DP-SGD teachers among a ledger's releases, by the teacher's version."""
    found: dict[str, History] = {}
    for row in releases:
        note: dict[str, Any] = json.loads(row["note"]) if row["note"] else {}
        if "history" in note:
            found[row["model"]] = [(float(nm), float(rate), int(steps)) for nm, rate, steps in note["history"]]
    return found
