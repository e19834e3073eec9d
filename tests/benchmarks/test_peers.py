# SPDX-License-Identifier: Apache-2.0
"""Peers take a few steps on tiny silos, their calls are counted to the image, and what they lack is told."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.silo_folder import make_folder

from benchmarks.peers import __main__ as bench
from benchmarks.peers import dense as dense_method
from benchmarks.peers.dense import averaged, dense
from benchmarks.peers.dfme import dfme, estimated_gradient, recovered_logits
from benchmarks.peers.feddf import feddf, mean_logits
from benchmarks.peers.fits import fitted_to_answers
from benchmarks.peers.ideal import ideal
from benchmarks.peers.methods import FEDAVG, OURS, PEERS, REFERENCES
from benchmarks.peers.pictures import public_pictures
from benchmarks.peers.rows import PeerRows, measure_seeds
from benchmarks.peers.silos import CountedSilos, PeerError, Silo, open_silo
from benchmarks.peers.task import Task
from benchmarks.peers.worlds import SKEWS, Setting
from benchmarks.tables import peers as tables
from fedcpsc.config import RunConfig
from fedcpsc.models.registry import build_classifier
from fedcpsc.teachers.state_dict import as_safetensors

SHAPE, K = (1, 8, 8), 3


class Watched(torch.nn.Module):
    """A teacher that counts, in another place than the benchmark, what passes through it."""

    def __init__(self, seed):
        super().__init__()
        self.inner, self.images = build_classifier("convnet", K, SHAPE, 4, seed=seed), 0

    def forward(self, x):
        self.images += len(x)
        return self.inner(x)


def watched_silos(budget, keep=30_000):
    teachers = [Watched(seed) for seed in range(2)]
    counts = [(9, 1, 0), (1, 5, 9)]
    silos = [Silo.of_network(f"silo-{i}", teacher, counts[i]) for i, teacher in enumerate(teachers)]
    return CountedSilos(silos, budget, keep), teachers


def task_of(public=None, steps=8):
    student = {"width": 4, "final_steps": steps, "batch_size": 4}
    return Task(RunConfig.model_validate({"student": student}), SHAPE, K, public)


@pytest.mark.parametrize(
    ("teach", "budget", "asked"),
    [
        (ideal, 13, 13),
        (feddf, 23, 20),  # it has no more pictures
        (dfme, 7 * 8 * 2 + 13, 7 * 8 * 2),  # two rounds of two probes and five steps on eight images each
        (dense, 16 * 5 + 3, 16 * 5),
    ],
)
def test_every_image_that_passes_through_a_teacher_is_a_call(teach, budget, asked):
    silos, teachers = watched_silos(budget)
    public = torch.rand(20, *SHAPE) * 2 - 1
    student = teach(silos, task_of(public))
    assert silos.calls == asked
    assert [teacher.images for teacher in teachers] == [asked, asked]
    before = task_of().new_student().state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in student.state_dict().items()), "it learns"


@pytest.mark.parametrize("teach", [ideal, dfme, dense, feddf])
def test_a_peer_gives_the_same_student_again_and_leaves_torchs_random_state(teach):
    public, state = torch.rand(20, *SHAPE) * 2 - 1, torch.random.get_rng_state()
    first, second = (teach(watched_silos(20)[0], task_of(public)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_would_pass_the_budget_is_refused_before_a_teacher_sees_it():
    silos, teachers = watched_silos(10)
    silos.answers(torch.zeros(7, *SHAPE))
    assert silos.left == 3
    with pytest.raises(PeerError, match="calls=7"):
        silos.one_teacher(torch.zeros(4, *SHAPE))
    assert teachers[0].images == 7
    silos.measured(torch.zeros(4, *SHAPE))
    assert silos.calls == 7, "measuring on held-out images is no call"


def test_the_latest_answers_are_kept_for_the_fit_of_fedcpsc():
    silos, _ = watched_silos(None, keep=5)
    pixels = torch.linspace(-1, 1, 9).view(9, 1, 1, 1).expand(9, *SHAPE)
    answers = torch.cat([silos.answers(part) for part in torch.split(pixels, 3)], 1)
    kept = silos.asked_before()
    assert kept.images[:, 0, 0, 0].tolist() == [128, 159, 191, 223, 255]
    np.testing.assert_array_equal(kept.answers, answers[:, 4:].numpy())
    assert fitted_to_answers(silos, task_of(steps=2)).classes == K


def test_methods_that_hold_weights_say_which_silos_give_none(tmp_path):
    weights = as_safetensors(build_classifier("convnet", 2, SHAPE, 4, seed=0).state_dict())
    torch_fields = {"kind": "torch", "architecture": "convnet", "width": 4, "entry_point": None}
    make_folder(tmp_path / "0", weights, silo="south", **torch_fields)
    make_folder(tmp_path / "1")  # a Python callable of its owner's
    given, kept, other = (
        open_silo(tmp_path / "0"),
        open_silo(tmp_path / "0", answers_alone=True),
        open_silo(tmp_path / "1"),
    )
    pixels = (torch.arange(2 * 64).view(2, *SHAPE) / 127.5) - 1  # of 8 bits, which both see alike
    torch.testing.assert_close(given.predict(pixels), kept.predict(pixels))
    for silos, named in ((CountedSilos([given, kept], 200), "south"), (CountedSilos([given, other], 200), "north")):
        with pytest.raises(PeerError, match=f"peer='DENSE': needs the weights of every silo, and {named} give answers"):
            dense(silos, task_of())
        assert silos.calls == 0
        two_classes = Task(task_of().config, SHAPE, 2)
        assert dfme(silos, two_classes).classes == 2, "who only asks needs none"


def test_feddf_says_that_it_needs_pictures():
    with pytest.raises(PeerError, match="peer='FedDF': needs public pictures"):
        feddf(watched_silos(10)[0], task_of())


def test_feddf_takes_mean_logits_from_probabilities():
    logits = torch.randn(3, 5, K, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_logits(torch.softmax(logits, 2)), torch.softmax(logits.mean(0), 1))


def test_dfme_recovers_logits_and_estimates_the_gradient_without_bias():
    logits = torch.randn(4, K, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(recovered_logits(torch.softmax(logits, 1)), logits - logits.mean(1, keepdim=True))
    network = build_classifier("convnet", K, SHAPE, 4, seed=1).double()
    silos = CountedSilos([Silo.of_network("one", network, (1, 1, 1))])
    student = build_classifier("convnet", K, SHAPE, 4, seed=2).double().eval()
    stream = torch.Generator().manual_seed(0)
    before = torch.randn(1, *SHAPE, generator=stream, dtype=torch.float64).requires_grad_()
    pixels = torch.tanh(before)
    (-(student(pixels) - recovered_logits(torch.softmax(network(pixels), 1))).abs().mean()).backward()
    many = before.detach().expand(2000, *SHAPE)
    found = estimated_gradient(silos, student, many, stream).sum(0)  # each is divided by their number
    assert F.cosine_similarity(found.flatten(), before.grad.flatten(), dim=0) > 0.96  # 64 dimensions: 0.984 expected
    assert 0.9 < found.norm() / before.grad.norm() < 1.1
    assert silos.calls == 4000


def test_dense_pushes_its_images_to_where_ensemble_and_student_differ():
    ensemble = torch.tensor([[3.0, 0, 0], [3, 0, 0]])
    student = torch.tensor([[0.0, 3, 0], [1, 0, 0]])
    p, q = torch.softmax(ensemble[0], 0), torch.softmax(student[0], 0)
    expected = (p * (p / q).log()).sum() / 2  # the second image is named alike and counts nothing
    torch.testing.assert_close(dense_method._disagreement(ensemble, student), expected)


def test_an_average_of_weights_is_weighted_by_images_and_wants_one_architecture():
    one, other = (build_classifier("convnet", K, SHAPE, 4, seed=seed) for seed in (1, 2))
    expected = 0.75 * one.head.weight.detach() + 0.25 * other.head.weight.detach()
    mean = averaged([copy.deepcopy(one), other], [30, 10])
    torch.testing.assert_close(mean.head.weight.detach(), expected)
    with pytest.raises(PeerError, match="peer='FedAvg'"):
        averaged([one, build_classifier("convnet", K, SHAPE, 8, seed=1)], [1, 1])


def test_public_pictures_are_none_that_a_silo_holds(tmp_path):
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    from support.picture_sources import png

    (tmp_path / "grey").mkdir()
    rows = [{"image": {"bytes": png(np.full((8, 8), shade, np.uint8))}, "label": shade % 2} for shade in range(40)]
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "grey" / f"{split}.parquet")
    data = {"source": "parquet", "path": str(tmp_path / "grey"), "train_limit": 25}
    config = RunConfig.model_validate({"data": data})
    from fedcpsc.data.sources import load_train

    held = set(load_train(config.data, config.seed).images[:, 0, 0, 0].tolist())
    pictures = public_pictures("grey", config, tmp_path, 15, (1, 8, 8))
    assert {round(127.5 * (value + 1)) for value in pictures[:, 0, 0, 0].tolist()} == set(range(40)) - held
    with pytest.raises(PeerError, match=r"has 15 that no silo holds, not 16"):
        public_pictures("grey", config, tmp_path, 16, (1, 8, 8))


def test_rows_are_written_seed_by_seed_and_go_on_where_they_were(tmp_path):
    asked = []

    def measure(seed):
        asked.append(seed)
        if seed == 3 and len(asked) == 3:
            raise KeyboardInterrupt
        return {"own": 90.0 + seed, "fitted": 80.0 + 2 * seed, "calls": 10}

    about = {"setting": "digits, 5 silos, IID", "method": "IDEAL", "budget": 10, "config": "c.yaml", "set": []}
    with pytest.raises(KeyboardInterrupt):
        measure_seeds(PeerRows(tmp_path / "rows.json"), about, [1, 2, 3], measure)
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["seeds"], row["mean"], row["std"]) == ([1, 2], 91.5, 0.71)
    row = measure_seeds(PeerRows(tmp_path / "rows.json"), about, [1, 2, 3], measure)
    assert asked == [1, 2, 3, 3]
    assert (row["seeds"], row["mean"], row["fitted_mean"], row["fitted_std"]) == ([1, 2, 3], 92.0, 84.0, 2.0)
    assert {"config", "set", "commit", "versions", "calls"} <= set(row)


def test_every_method_has_a_column(monkeypatch):
    assert {OURS, *(peer.name for peer in PEERS)} == set(tables._METHODS)
    assert {FEDAVG, *REFERENCES} == set(tables._REFERENCES)
    row = {"setting": "digits, 5 silos, IID", "budget": 2000, "mean": 90.0, "std": 1.0, "seeds": [1], "calls": 1920}
    held = [row | {"method": "fedcpsc"}, row | {"method": "DENSE", "fitted_mean": 70.0, "fitted_std": 2.0}]
    monkeypatch.setattr(tables, "read", lambda name: held)
    assert tables.comparison()[2] == (
        "| digits, 5 silos, IID | 2,000 | **90.0 +- 1.0** | - | - | 90.0 +- 1.0 / 70.0 +- 2.0 | - | - | 1 |"
    )


def test_a_table_without_rows_says_that_nothing_was_measured(monkeypatch):
    monkeypatch.setattr(tables, "read", lambda name: None)
    assert (
        tables.comparison()
        == tables.references()
        == tables.published()
        == ["Not measured yet: the page names the command."]
    )


def test_the_command_ends_with_the_reason_where_a_peer_lacks_something(tmp_path, monkeypatch, capsys):
    def lacking(world, method, calls):
        raise PeerError("peer='DENSE': needs the weights of every silo")

    monkeypatch.setattr(bench, "load", lambda *arguments, **options: None)
    monkeypatch.setattr(bench, "measured", lacking)
    given = ["--out", str(tmp_path / "rows.json"), "--only", "digits", "--methods", "DENSE", "--answers-alone"]
    monkeypatch.setattr(sys, "argv", ["peers", *given])
    assert bench.main() == 1
    assert "peer='DENSE'" in capsys.readouterr().err
    assert not (tmp_path / "rows.json").exists()


def test_every_setting_is_a_configuration_that_can_be_read(monkeypatch):
    from support.documented import ROOT

    from fedcpsc.config import load_config

    monkeypatch.chdir(ROOT)
    for setting in bench.SETTINGS:
        config = load_config(setting.config, [item.replace("{data}", "/data") for item in setting.overrides])
        assert config.silos.count == 5
        assert config.aggregation.rule == "class_prior_log"
    assert {setting.skew for setting in bench.SETTINGS} == set(SKEWS)
    assert Setting("digits", "IID", 1).name == "digits, 1 silo, IID"
