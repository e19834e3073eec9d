"""What a manifest says of its teacher's training, checked before any mechanism builds on it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from fedcpsc.errors import PolicyError, explain
from fedcpsc.gatekeeper.ledger_chain import Row
from fedcpsc.gatekeeper.manifest import Manifest
from fedcpsc.privacy.accounting import History
from fedcpsc.privacy.randomness import NOISE_SOURCE
from fedcpsc.typed_yaml import Strict

__all__ = ["DpSgdProof", "ShardsProof", "histories_of", "history_in", "proof_of"]

Share = Annotated[float, Field(gt=0, lt=1)]
Step = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0, le=1)], Annotated[int, Field(ge=1)]]


class DpSgdProof(Strict):
    """The teacher was trained by DP-SGD with Poisson sampling.

    Attributes:
        epsilon: epsilon that the configuration asked for; the training's is at most that.
        delta: delta of the same guarantee.
        unit: what the guarantee protects.
        records: public number of records (of persons where `unit` says so) that rate and steps were derived from.
        noise_source: name of the random source of noise and sampling.
        history: the accountant's state: (noise multiplier, sample rate, steps); follows from the configuration alone.
    """

    kind: Literal["dp_sgd"] = "dp_sgd"
    epsilon: Annotated[float, Field(gt=0)]
    delta: Share
    relation: Literal["add_remove"] = "add_remove"
    unit: Literal["record", "person"] = "record"
    records: Annotated[int, Field(ge=1)]
    noise_source: str
    history: tuple[Step, ...] = Field(min_length=1)


class ShardsProof(Strict):
    """K teachers, each trained on the records that a keyed hash sent to it and on nothing else private.

    Attributes:
        shards: K.
        assignment: how records are dealt; only the keyed hash of the record alone is a proof.
    """

    kind: Literal["shards"] = "shards"
    shards: Annotated[int, Field(ge=2)]
    assignment: Literal["hmac-sha256"] = "hmac-sha256"
    relation: Literal["add_remove"] = "add_remove"
    unit: Literal["record", "person"] = "record"


Proof: TypeAlias = Annotated[DpSgdProof | ShardsProof, Field(discriminator="kind")]
_PROOF: TypeAdapter[DpSgdProof | ShardsProof] = TypeAdapter(Proof)


def proof_of(manifest: Manifest) -> DpSgdProof | ShardsProof | None:
    """The checked proof, None where the training claims nothing.

    Raises:
        PolicyError: where the manifest's claim is incomplete, or rests on noise that can be replayed.
    """
    if manifest.privacy is None:
        return None
    source = manifest.privacy.get("noise_source")
    if manifest.privacy.get("kind", "dp_sgd") == "dp_sgd" and source != NOISE_SOURCE:
        why = "the noise of this teacher's training can be replayed, and its claim is lost"
        remedy = "train the teacher again: both trainings then count"
        raise PolicyError(explain("manifest.privacy.noise_source", source, why, remedy))
    try:
        proof = _PROOF.validate_python(manifest.privacy)
    except ValidationError as error:
        faults = ", ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise PolicyError(
            explain("manifest.privacy", manifest.privacy, f"is no proof ({faults})", "train the teacher again")
        ) from error
    return proof


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
