# SPDX-License-Identifier: Apache-2.0
"""A flipped bit or a lost byte in what a resumed run goes on with is seen, named and refused, or changes nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from support.fakes import FakeSilo
from support.old_bank import without_sums
from support.tiny_runs import tiny_config

from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import BankError, RunError
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.checkpoint import read_state, write_state

FLIPS = 300
SHAPE, K, SILOS = (1, 4, 4), 3, ["silo-0", "silo-1"]


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def some_bits(raw: bytes, count: int, seed: int) -> list[int]:
    """Bits of the whole file, and each of its first line's bytes, which say what the file is."""
    rng = np.random.default_rng(seed)
    return [8 * byte + int(rng.integers(8)) for byte in range(min(90, len(raw)))] + [
        int(bit) for bit in rng.integers(0, 8 * len(raw), count)
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A committee's state as a run leaves it. Not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    config = tiny_config(queries__rounds=2)
    distill(config, LocalTransport([FakeSilo(f"silo-{i}", classes=3) for i in range(2)]), folder / "run")
    return folder / "run"


def test_no_flipped_bit_of_a_checkpoint_is_believed(checkpoint, tmp_path):
    whole = (checkpoint / "checkpoint/state.pt").read_bytes()
    path = tmp_path / "state.pt"
    for bit in some_bits(whole, FLIPS, seed=1):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(RunError, match=r"state\.pt.*cannot be used.*delete the checkpoint folder"):
            read_state(tmp_path)
    path.write_bytes(whole)
    assert read_state(tmp_path)["ends"] == [1, 2]


@pytest.mark.parametrize("left", [0, 1, 20, 79, 80, 81, 0.5, -1])
def test_no_checkpoint_cut_short_is_believed(checkpoint, tmp_path, left):
    whole = (checkpoint / "checkpoint/state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(RunError, match=r"state\.pt.*cannot be used"):
        read_state(tmp_path)


def test_a_damaged_checkpoint_stops_a_resume_before_anything_is_written_or_asked(checkpoint, tmp_path):
    run = shutil.copytree(checkpoint, tmp_path / "run")
    path = run / "checkpoint/state.pt"
    path.write_bytes(flipped(path.read_bytes(), 8 * path.stat().st_size - 4000))
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    fakes = [FakeSilo(f"silo-{i}", classes=3) for i in range(2)]
    with pytest.raises(RunError, match=r"state\.pt.*checksum.*delete the checkpoint folder"):
        distill(tiny_config(queries__rounds=2), LocalTransport(fakes), run, resume=True)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert not any(fake.queries for fake in fakes)


def test_a_checkpoint_without_a_checksum_loads_once_and_says_so(checkpoint, tmp_path):
    state = read_state(checkpoint / "checkpoint")
    torch.save(state, tmp_path / "state.pt")
    told = []
    old = read_state(tmp_path, tell=told.append)
    (line,) = told
    assert "state.pt has no checksum" in line
    write_state(tmp_path, old)
    assert read_state(tmp_path, tell=told.append)["ends"] == state["ends"]
    assert told == [line]


def bank(folder):
    """Three batches: one answered by both silos, one by a silo in parts, one by none."""
    rng = np.random.default_rng(3)
    made = AnswerBank(folder, SHAPE, K, SILOS)
    for index, count in enumerate((6, 8, 4)):
        made.add_batch(index, rng.integers(0, 256, (count, *SHAPE)).astype(np.uint8), np.arange(count))
    for silo in SILOS:
        made.add_answers(made.batches[0].query_id, silo, rng.dirichlet(np.ones(K), 6).astype(np.float32))
    for rows in (slice(6, 9), slice(11, 14)):
        made.add_answers(made.batches[1].query_id, "silo-1", rng.dirichlet(np.ones(K), 3).astype(np.float32), rows)
    return made


def content(folder):
    view = read_bank(folder)
    view.check_sums()
    answers = [(p.tolist(), given.tolist()) for p, given in map(view.answers, view.batches)]
    return view.silos, view.batches, view.images.tolist(), view.pseudo_labels.tolist(), view.origins.tolist(), answers


@pytest.mark.parametrize(
    "name", ["journal.jsonl", "images.u8", "pseudo.i64", "origins.u8", "answers-0.f32", "answers-1.f32"]
)
def test_a_flipped_bit_of_a_bank_is_seen_or_changes_nothing(tmp_path, name):
    bank(tmp_path)
    path, before = tmp_path / name, content(tmp_path)
    whole, harmless, said = path.read_bytes(), 0, set()
    bits = [bit for bit in some_bits(whole, FLIPS, seed=2) if bit // 8 != len(whole) - 1 or name != "journal.jsonl"]
    for bit in bits:  # a last line without its end is what a crash leaves: it is asked for again, uncharged
        path.write_bytes(flipped(whole, bit))
        try:
            assert content(tmp_path) == before
            harmless += 1
        except BankError as error:
            said.add(name in str(error) or "journal" in str(error))  # a line and its data have one sum
    assert said == {True}
    assert harmless < len(bits) / 3  # rows that nobody answered, and a sum's own name


@pytest.mark.parametrize("name", ["images.u8", "pseudo.i64", "origins.u8", "answers-0.f32", "answers-1.f32"])
@pytest.mark.parametrize("left", [0, 0.3, 0.7])
def test_a_bank_cut_short_is_seen(tmp_path, name, left):
    bank(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(BankError, match=name.replace(".", r"\.")):
        content(tmp_path)


def test_a_bank_without_checksums_is_read_and_its_new_lines_have_them(tmp_path):
    bank(tmp_path)
    before = content(tmp_path)
    without_sums(tmp_path)
    assert content(tmp_path) == before
    assert not read_bank(tmp_path).check_sums()
    again = AnswerBank(tmp_path, SHAPE, K, SILOS)
    again.add_answers(again.batches[2].query_id, "silo-0", np.full((4, K), 1 / K, np.float32))
    assert '"crc32"' in (tmp_path / "journal.jsonl").read_text().splitlines()[-1]
    path = tmp_path / "answers-0.f32"
    path.write_bytes(flipped(path.read_bytes(), 8 * 4 * K * 15))
    with pytest.raises(BankError, match=r"answers-0\.f32.*checksum"):
        content(tmp_path)


def test_a_line_that_lost_its_checksum_among_others_is_damage(tmp_path):
    bank(tmp_path)
    journal = tmp_path / "journal.jsonl"
    head, line, *rest = journal.read_text().splitlines()
    bare = json.dumps({k: v for k, v in json.loads(line).items() if k != "crc32"})
    journal.write_text("\n".join([head, bare, *rest]) + "\n")
    with pytest.raises(BankError, match="has no checksum"):
        content(tmp_path)


def test_resuming_an_old_run_says_once_that_damage_cannot_be_seen(checkpoint, tmp_path):
    run = shutil.copytree(checkpoint, tmp_path / "run")
    torch.save(read_state(run / "checkpoint"), run / "checkpoint/state.pt")
    without_sums(run / "bank")
    fakes = [FakeSilo(f"silo-{i}", classes=3) for i in range(2)]
    told = []
    distill(tiny_config(queries__rounds=2), LocalTransport(fakes), run, resume=True, tell=told.append)
    assert sum("checksum" in line for line in told) == 2
