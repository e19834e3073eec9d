# SPDX-License-Identifier: Apache-2.0
"""Damaged YAML: whatever a slip of the hand, of an editor or of a disk makes of a file, it is read or explained."""

import random
import time
import tracemalloc
from pathlib import Path

import pytest

from fedcpsc.audit.plan import AuditConfig
from fedcpsc.config import RunConfig
from fedcpsc.errors import ConfigError, PolicyError
from fedcpsc.gatekeeper.policy import load_policy
from fedcpsc.typed_yaml import load_as
from fedcpsc.white_box.plan import WhiteBoxConfig

CONFIGS = Path(__file__).parent.parent / "configs"
POLICY = """# limits
answers: 500
forms: [label, probabilities]
images_per_query: 100
share_class_counts: true
class_count_sigma: 10.5
mechanism: &m {kind: dp_sgd, epsilon: 3.0, delta: 1e-5}
service:
  batch_size: 500
  read_timeout_s: 30.0
"""
TOKENS = [
    *(
        "\t",
        "\0",
        "\ufeff",
        "\u200b",
        "\xa0",
        "\r",
        "\x85",
        "\u2028",
        "\x1b[31m",
        "\ud800",
        "\n\n",
        "    ",
        "%YAML 1.1",
    ),
    *("&a ", "*a", "<<: ", "[", "]", "{", "}", ": ", ":", "- ", "? ", "!!int ", "!!binary ", "! ", "'", '"', "\\", "#"),
    *("---\n", "...\n", " >", "@", "`", ",", "~", "=", ".inf", "0x1F", "010", "1_0", "1e999", "10:00", "2026-11-28"),
]
KINDS = {
    "policy": (POLICY.encode(), load_policy),
    "run": ((CONFIGS / "mnist_shards.yaml").read_bytes(), lambda path: load_as(RunConfig, path)),
    "audit": ((CONFIGS / "audit_digits.yaml").read_bytes(), lambda path: load_as(AuditConfig, path)),
    "white box": ((CONFIGS / "white_box_digits.yaml").read_bytes(), lambda path: load_as(WhiteBoxConfig, path)),
}


def _damaged(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.randint(1, 4)):
        at, lines = draw.randrange(len(data) + 1), data.split(b"\n")
        one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
        token = draw.choice(TOKENS).encode("utf-8", "surrogatepass")
        data = draw.choice(
            [
                data[:at] + token + data[at:],
                data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
                data[:at],
                data[:at] + data[at + draw.randint(1, 20) :],
                b"\n".join([*lines[:other], lines[one], *lines[other:]]),
                b"\n".join([*lines[:one], *lines[one + 1 :]]),
                b"\n".join([*lines[:one], b"  " + lines[one], *lines[one + 1 :]]),
                b"\n".join([*lines[:one], lines[one].strip(), *lines[one + 1 :]]),
                data + token * draw.choice([1, 100, 3_000]),
            ]
        )
    return data


def _fault(load, path) -> str | None:
    try:
        load(path)
    except (ConfigError, PolicyError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_damaged_files_of_each_kind_are_read_or_explained_soon_and_in_little_memory(tmp_path, kind):
    sound, load = KINDS[kind]
    path, draw, refused = tmp_path / "file.yaml", random.Random(kind), 0
    path.write_bytes(sound)
    assert _fault(load, path) is None
    for number in range(500):
        path.write_bytes(_damaged(sound, draw))
        begun = time.process_time()
        measured = number % 20 == 0  # it takes three times as long
        if measured:
            tracemalloc.start()
        try:
            fault = _fault(load, path)
            assert not measured or tracemalloc.get_traced_memory()[1] < 50e6
        finally:
            tracemalloc.stop()
        assert time.process_time() - begun < 5
        refused += fault is not None
        assert not any(one in (fault or "") for one in "\0\x1b\r\ud800\u200b\u2028")
        assert len(fault or "") < 50_000
    assert refused > 200
