# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand malformed requests: no crash, no charge, and no reply that depends on the private data."""

import random
from pathlib import Path

import numpy as np
import pytest
from support.tiny_recipes import a_recipe, both_ways

from fedcpsc.errors import RefusalCode, Refused
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.service import _message
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.messages import AnswerForm, AnyQuery, Query, Refusal

from support.silo_folder import make_folder  # isort: skip

MALFORMED = 100_000


def mutated(stream: random.Random, valid: bytes) -> bytes:
    """One of the ways in which bytes go wrong."""
    way = stream.randrange(6)
    body = bytearray(valid)
    if way == 0:
        return bytes(body[: stream.randrange(len(body))])
    if way == 1:
        return stream.randbytes(stream.randrange(200))
    if way == 2:  # the header's length
        body[:8] = stream.getrandbits(stream.choice([8, 16, 64])).to_bytes(8, "little")
    elif way == 3:
        for _ in range(stream.randrange(1, 8)):
            body[stream.randrange(len(body))] = stream.randrange(256)
    elif way == 4:  # the header's text
        words = [
            b"query",
            b"uint8",
            b"U8",
            b"[",
            b'"1.0"',
            b"probabilities",
            b"query_id",
            b"data_offsets",
            b"0",
            b"pools",
        ]
        old, new = stream.choice(words), stream.choice([b"", b"null", b"-1", b"1e999", b"\xff", b"F32", b'"', b"{"])
        return bytes(body).replace(old, new, 1)
    else:
        at = stream.randrange(len(body))
        body[at:at] = stream.randbytes(stream.randrange(1, 9))
    return bytes(body)


def reply(gatekeeper: Gatekeeper, body: bytes) -> bytes:
    """As the service does it."""
    try:
        return to_bytes(gatekeeper.answer(_message(body, AnyQuery)))
    except Refused as refused:
        return to_bytes(Refusal(refused.code))


def test_malformed_requests_crash_nothing_charge_nothing_and_tell_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "fedcpsc.gatekeeper")  # a hundred thousand warnings would be kept in memory
    make_folder(tmp_path / "a")
    make_folder(tmp_path / "b", b"1", population="south", private_class_counts=(1, 19_999))
    silos = [open_gatekeeper(tmp_path / name) for name in "ab"]  # two silos whose data has nothing in common
    stream = random.Random(1)
    # of a shape no silo here takes: even what survives mutation is malformed
    images = np.zeros((1, 1, 5, 5), np.uint8)
    valid = [to_bytes(Query(f"{number:032x}", form, images)) for number, form in enumerate(AnswerForm)]
    valid.append(to_bytes(both_ways(a_recipe((1, 5, 5)))[1]))
    codes = set()
    for _ in range(MALFORMED):
        body = mutated(stream, stream.choice(valid))
        one, other = (reply(silo, body) for silo in silos)
        assert one == other
        codes.add(one)
    assert all(silo.ledger.verify().events == 1 for silo in silos)  # only its beginning
    assert to_bytes(Refusal(RefusalCode.MALFORMED)) in codes
    assert not any(RefusalCode.INTERNAL.value.encode() in code for code in codes)
