# SPDX-License-Identifier: Apache-2.0
"""What a silo says of which teacher answers: another text for another teacher, and nothing else."""

from contextlib import closing

import numpy as np
from support.silo_folder import SHAPE, make_folder

from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import AnswerForm, DescribeRequest, Query
from fedcpsc.teachers.manifest import WEIGHTS_FILE, load_manifest, save_manifest, sha256_hex

IMAGES = np.zeros((2, *SHAPE), np.uint8)


def put(folder, weights):
    """Another teacher in the same silo, as its owner would place it."""
    (folder / WEIGHTS_FILE).write_bytes(weights)
    save_manifest(load_manifest(folder).model_copy(update={"weights_sha256": sha256_hex(weights)}), folder)


def said_by(folder, query_id=None):
    with closing(open_gatekeeper(folder)) as gatekeeper:
        if query_id:
            gatekeeper.answer(Query(query_id, AnswerForm.PROBABILITIES, IMAGES))
        return gatekeeper.describe(DescribeRequest())


def test_it_changes_with_the_teacher_comes_back_with_it_and_survives_restarts(tmp_path):
    make_folder(tmp_path)
    first = said_by(tmp_path, "1" * 32).teacher
    assert first == said_by(tmp_path).teacher
    assert len(first) == 16
    put(tmp_path, b"100")
    second = said_by(tmp_path, "2" * 32).teacher
    assert second not in (None, first)
    put(tmp_path, b"90")
    assert said_by(tmp_path).teacher not in (first, second), "also before it has answered anything"
    put(tmp_path, b"128")
    assert said_by(tmp_path).teacher == first


def test_it_tells_nothing_of_the_weights(tmp_path):
    """The same teacher at another silo, and another teacher at this one, say what they like: it follows no weights."""
    make_folder(tmp_path / "one")
    make_folder(tmp_path / "other")
    assert said_by(tmp_path / "one").teacher != said_by(tmp_path / "other").teacher
    said = said_by(tmp_path / "one").teacher
    put(tmp_path / "one", b"77")  # before anything was charged, no ledger tells them apart
    assert said_by(tmp_path / "one").teacher == said
    assert sha256_hex(b"77")[:8] not in said


def test_under_differential_privacy_that_covers_answers_alone_nothing_is_said(tmp_path):
    noisy = {"kind": "noise_only", "sigma": 10.0, "epsilon": 1e6}
    make_folder(tmp_path, policy={"answers": 100, "mechanism": noisy})
    assert said_by(tmp_path).teacher is None


def test_it_crosses_the_wire(tmp_path):
    make_folder(tmp_path)
    said = said_by(tmp_path)
    assert from_bytes(to_bytes(said)) == said
