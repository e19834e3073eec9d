# SPDX-License-Identifier: Apache-2.0
"""Old content or new, never half."""

import pytest

from fedcpsc.files import durable, write_whole


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "config.yaml"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \udc80")  # fails halfway: a lone surrogate is no UTF-8
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_a_private_file_is_the_owners_alone_even_over_a_leftover(tmp_path):
    path = tmp_path / "canaries.json"
    leftover = tmp_path / "canaries.json.partial"
    leftover.write_text("of a crash")
    leftover.chmod(0o644)
    write_whole(path, "secret", private=True)
    assert path.read_text() == "secret"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_durable_file_replaces_the_old_one_only_when_it_is_complete(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def dies_halfway():
        with durable(path) as file:
            file.write(b"half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        dies_halfway()
    assert path.read_bytes() == b"old"
    with durable(path) as file:
        file.write(b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("state", b"new")]
