# SPDX-License-Identifier: Apache-2.0
"""Old content or new, never half."""

import os

import pytest

from fedcpsc.files import copy_bytes, durable, write_whole


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


@pytest.mark.parametrize("ranges", ["as the system has them", "not here", "broken off"])
def test_a_copy_holds_the_first_bytes_and_is_its_owners_alone(tmp_path, monkeypatch, ranges):
    content = os.urandom(3_000_000)
    (tmp_path / "source").write_bytes(content)
    if ranges != "as the system has them":
        calls = []

        def copy(read, written, count):
            calls.append(count)
            if ranges == "not here" or len(calls) > 1:
                raise OSError(18, "Invalid cross-device link")
            return os.write(written, os.pread(read, 1000, 0))

        monkeypatch.setattr(os, "copy_file_range", copy, raising=False)
    copy_bytes(tmp_path / "source", tmp_path / "copy", 2_500_000)
    assert (tmp_path / "copy").read_bytes() == content[:2_500_000]
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        copy_bytes(tmp_path / "source", tmp_path / "copy", 10)
    with pytest.raises(OSError, match="500,000 bytes shorter"):
        copy_bytes(tmp_path / "source", tmp_path / "longer", 3_500_000)
    copy_bytes(tmp_path / "source", tmp_path / "empty", 0)
    assert (tmp_path / "empty").read_bytes() == b""
