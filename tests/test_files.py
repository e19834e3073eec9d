"""Old content or new, never half."""

import pytest

from fedcpsc.files import write_whole


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "config.yaml"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \udc80")  # fails halfway: a lone surrogate is no UTF-8
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
