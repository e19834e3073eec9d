# SPDX-License-Identifier: Apache-2.0
"""Teachers that start from public weights: whole, or with all but the head frozen."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.data.sources import load_evaluation
from fedcpsc.errors import ConfigError, ManifestError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.models.pretrained import Pretrained
from fedcpsc.models.registry import build_classifier
from fedcpsc.protocol.messages import DescribeRequest
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.silos.make import make_silos
from fedcpsc.teachers.manifest import WEIGHTS_FILE, load_manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.proof import DpSgdProof, proof_of
from fedcpsc.training import plain
from fedcpsc.training.network import begun, check_begins, public_weights
from fedcpsc.training.teacher import train_teacher
from fedcpsc.training.unit_gradients import HeadGradients

SHAPE = (1, 8, 8)
DP: dict[str, object] = {"kind": "dp_sgd", "epsilon": 8.0, "delta": 1e-4, "records": 200, "optimiser": "sgd"}


@pytest.fixture(scope="module")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a convnet for 20 classes whose batch norms have seen something."""
    network = build_classifier("convnet", 20, SHAPE, 4, seed=7)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(64, *SHAPE) * 2 - 1)
    path = tmp_path_factory.mktemp("public") / "convnet.safetensors"
    save_file(dict(network.state_dict()), path)
    return path


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of torchvision's network for colour images."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("public") / "resnet18.safetensors"
    save_file(torchvision.models.resnet18().state_dict(), path)
    return path


def teachers(**fields: object) -> TeachersConfig:
    given = {"width": 4, "epochs": 2, "learning_rate": 1e-2, "shift": 0, **fields}
    return TeachersConfig.model_validate(given)


def two_classes(count: int = 200, shape: tuple[int, int, int] = SHAPE) -> ImageSet:
    stream = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = stream.integers(0, 100, (count, *shape)) + 150 * labels[:, None, None, None]
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64), 2)


def trained(config: TeachersConfig, folder: Path, architecture: str = "convnet", images: ImageSet | None = None) -> Any:
    images = images or two_classes()
    return train_teacher(
        images, config, 1, architecture, lambda line: None, folder, weights=public_weights(config)
    )  # fmt: skip


@pytest.mark.parametrize("training", [{"kind": "plain"}, DP], ids=["plain", "dp_sgd"])
def test_a_frozen_network_keeps_all_but_its_head_to_the_bit(
    training: dict[str, object], convnet: Path, tmp_path: Path
) -> None:
    config = teachers(weights=str(convnet), frozen=True, training=training, epochs=30, learning_rate=0.1)
    made = trained(config, tmp_path)
    given = load_file(convnet)
    assert (made.kind, made.architecture) == ("torch", "convnet")  # by DP-SGD too: its batch norms stay as they are
    assert set(made.states) == set(given)
    for name, tensor in made.states.items():
        assert torch.equal(tensor, given[name]) == (not name.startswith("head.")), name
    network = build_classifier("convnet", 2, SHAPE, 4)
    network.load_state_dict(made.states)
    images = two_classes()
    with torch.no_grad():
        right = network.eval()(to_pixels(torch.from_numpy(images.images))).argmax(1).numpy() == images.labels
    assert right.mean() > 0.9, right.mean()


def test_features_of_a_frozen_network_depend_on_no_other_image(convnet: Path) -> None:
    """Without it no gradient would be one record's own: in training mode batch norm mixes the images of a batch."""
    config = teachers(weights=str(convnet), frozen=True)
    network = begun(config, "convnet", 2, SHAPE, 1, public_weights(config)).train()
    before = {name: tensor.clone() for name, tensor in network.stored.state_dict().items()}
    x = torch.rand(32, *SHAPE) * 2 - 1
    torch.testing.assert_close(network.features(x)[:1], network.features(x[:1]), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.stored.state_dict().items())
    mixed = build_classifier("convnet", 2, SHAPE, 4).train()
    assert not torch.allclose(mixed.features(x)[:2], mixed.features(x[:2]), rtol=1e-2), "or nothing was shown"
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad] == [
        "network.head.weight",
        "network.head.bias",
    ]


def test_features_that_would_fill_the_memory_are_computed_in_every_epoch_anew(
    convnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = teachers(weights=str(convnet), frozen=True)
    kept = trained(config, tmp_path)
    monkeypatch.setattr(plain, "_MOST_FEATURES", 200 * 16 * 4 - 1)
    monkeypatch.setattr(plain, "fixed_features", lambda *_: pytest.fail("kept"))
    anew = trained(config, tmp_path)
    torch.testing.assert_close(anew.states["head.weight"], kept.states["head.weight"], rtol=1e-4, atol=1e-5)


def test_a_fresh_head_on_frozen_features_begins_at_zero_and_a_given_one_as_it_is(convnet: Path) -> None:
    config = teachers(weights=str(convnet), frozen=True)
    fresh, given = (begun(config, "convnet", classes, SHAPE, 1, public_weights(config)).head for classes in (2, 20))
    assert not fresh.weight.any()
    assert not fresh.bias.any()
    assert torch.equal(given.weight, load_file(convnet)["head.weight"])


@pytest.mark.parametrize("training", [{"kind": "plain"}, {"kind": "shards", "shards": 3}], ids=["plain", "shards"])
def test_without_freezing_the_whole_network_is_trained_from_there(
    training: dict[str, object], convnet: Path, tmp_path: Path
) -> None:
    config = teachers(weights=str(convnet), training=training, epochs=1, learning_rate=1e-9)
    made = trained(config, tmp_path).states
    given = load_file(convnet)
    name = next(name for name, tensor in given.items() if tensor.dim() == 4)
    torch.testing.assert_close(made[name].reshape(-1, *given[name].shape)[0], given[name], atol=1e-5, rtol=0)
    at_random = trained(teachers(training=training, epochs=1, learning_rate=1e-9), tmp_path).states
    assert not torch.allclose(at_random[name].reshape(-1, *given[name].shape)[0], given[name], atol=1e-2)


def test_the_proof_names_the_public_weights_and_says_the_same_of_neighbours(convnet: Path, tmp_path: Path) -> None:
    config = teachers(weights=str(convnet), frozen=True, training=DP, epochs=1)
    weights = public_weights(config)
    assert weights is not None
    proofs = [trained(config, tmp_path, images=two_classes(count)).proof for count in (200, 201, 207)]
    assert len({json.dumps(proof) for proof in proofs}) == 1
    assert proofs[0]["public_weights"] == weights.sha256
    at_random = trained(teachers(training=DP, epochs=1), tmp_path, "scattering").proof
    assert "public_weights" not in at_random


def federation(teachers: dict[str, object], **data: object) -> RunConfig:
    tree = {
        "data": {"train_limit": 80, "test_limit": 60, **data},
        "silos": {"count": 2, "partition": {"kind": "iid"}, "policy": {"answers": 500}},
        "teachers": {"width": 4, "epochs": 1, "shift": 0, **teachers},
        "runtime": {"device": "cpu", "threads": 1},
    }
    return RunConfig.model_validate(tree)


def test_a_silo_with_a_frozen_network_of_a_library_answers_as_that_network_does(resnet: Path, tmp_path: Path) -> None:
    """Features of images that were normalised as its weights expect, and a manifest from which it opens again."""
    chosen = {"architecture": "torchvision/resnet18", "weights": str(resnet), "normalisation": "imagenet"}
    config = federation({**chosen, "frozen": True}, channels=3, image_size=32)
    lines: list[str] = []
    reports = make_silos(config, tmp_path, lines.append)
    assert [line for line in lines if line.startswith("teachers.weights")] == [
        "teachers.weights: of resnet18.safetensors 120 tensors are taken; the head (fc.weight, fc.bias) begins at zero:"
        " in the file it is for 1000 classes; torchvision/resnet18 was made for larger images: of 32x32 pixels its last"
        " convolutions see a single one; networks of this project, such as convnet and resnet18, keep small images"
        " larger, and data.image_size enlarges images"
    ]
    manifest = load_manifest(tmp_path / "0")
    assert (manifest.kind, manifest.architecture) == ("torchvision", "resnet18")
    assert manifest.normalisation.mean == (0.485, 0.456, 0.406)
    assert manifest.training["frozen"] is True
    held_out = load_evaluation(config.data, config.seed)
    network = torchvision.models.resnet18(num_classes=10)
    network.load_state_dict(load_file(tmp_path / "0" / WEIGHTS_FILE))
    constants = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    with torch.no_grad():
        wanted = network.eval()((torch.from_numpy(held_out.images) / 255 - constants[0]) / constants[1]).softmax(1)
    answers = open_teacher(tmp_path / "0", manifest).predict(held_out.images)
    np.testing.assert_allclose(answers, wanted.numpy(), atol=1e-5)
    assert reports[0].accuracy == pytest.approx((answers.argmax(1) == held_out.labels).mean())


def test_a_teacher_is_made_anew_for_other_weights_and_not_for_another_path(convnet: Path, tmp_path: Path) -> None:
    there, moved = tmp_path / "there.safetensors", tmp_path / "moved.safetensors"
    for path in (there, moved):
        path.write_bytes(convnet.read_bytes())
    chosen: dict[str, object] = {"frozen": True, "weights": str(there)}
    make_silos(federation(chosen), tmp_path / "silos")
    again = make_silos(federation({**chosen, "weights": str(moved)}), tmp_path / "silos")
    assert [report.reused for report in again] == [True, True]
    state = load_file(moved)
    save_file({name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in state.items()}, moved)
    other = make_silos(federation({**chosen, "weights": str(moved)}), tmp_path / "silos")
    assert [report.reused for report in other] == [False, False]


def test_a_private_silo_shows_which_weights_its_guarantee_leaves_out(convnet: Path, tmp_path: Path) -> None:
    records = {**DP, "records": 40, "delta": 1e-3, "epsilon": 50}
    config = federation({"frozen": True, "weights": str(convnet), "training": records, "batch_size": 8})
    make_silos(config, tmp_path)
    proof = proof_of(load_manifest(tmp_path / "0"))
    assert isinstance(proof, DpSgdProof)
    weights = public_weights(config.teachers)
    assert weights is not None
    assert proof.public_weights == weights.sha256


REFUSED = [
    ({"frozen": True}, "keeps the weights that teachers.weights names, and there are none"),
    ({"frozen": True, "weights": "w", "shift": 1}, "shift is 1.*set teachers.shift: 0"),
    ({"frozen": True, "weights": "w", "flip": True}, "flip True"),
]


@pytest.mark.parametrize(("fields", "why"), REFUSED)
def test_what_does_not_go_together_is_refused_in_the_file(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        teachers(**fields)


@pytest.mark.parametrize(
    ("fields", "data", "why"),
    [
        ({"weights": "missing.safetensors"}, {}, "teachers.weights.*cannot be read.*never downloaded"),
        ({"weights": "{convnet}", "width": 8}, {}, "does not hold the weights of convnet.*set teachers.width and"),
        (
            {"weights": "{convnet}", "architecture": "lenet5"},
            {},
            "does not hold the weights of lenet5.*set teachers.architecture to theirs",
        ),
        ({"weights": "{convnet}", "training": DP}, {}, "convnet_gn takes other weights.*teachers.frozen: true"),
        (
            {"weights": "{convnet}", "frozen": True, "training": {"kind": "shards", "shards": 4}},
            {},
            "would store the frozen network 4 times",
        ),
        ({"architecture": "torchvision/resnet18"}, {}, "only the head can be trained here.*fedcpsc adopt"),
        (
            {"architecture": "torchvision/resnet18", "weights": "{resnet}", "frozen": True},
            {"image_size": 32},
            "is for images of 3 channels, and these have 1.*set data.channels: 3",
        ),
        (
            {"architecture": "torchvision/squeezenet1_1", "weights": "{resnet}", "frozen": True},
            {"image_size": 32, "channels": 3},
            "does not hold the weights of torchvision/squeezenet1_1",
        ),
        ({"weights": "{convnet}", "normalisation": "imagenet"}, {}, "is for the frozen network"),
        (
            {"weights": "{convnet}", "normalisation": "imagenet", "frozen": True},
            {},
            "has 3 means, and the images have 1 channels",
        ),
        ({"architecture": "torchvision/resnet81", "weights": "{resnet}", "frozen": True}, {}, "unknown to torchvision"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    fields: dict[str, object], data: dict[str, object], why: str, convnet: Path, resnet: Path, tmp_path: Path
) -> None:
    paths = {"{convnet}": str(convnet), "{resnet}": str(resnet)}
    given = {key: paths.get(value, value) if isinstance(value, str) else value for key, value in fields.items()}
    with pytest.raises(ConfigError, match=why):
        make_silos(federation(given, **data), tmp_path)
    assert not list(tmp_path.rglob(WEIGHTS_FILE))


def test_a_network_with_two_heads_is_refused_for_only_one_would_be_trained(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("repvit_m0_9", num_classes=10)
    config = teachers(weights="here", frozen=True)
    weights = Pretrained(network.state_dict(), tmp_path / "here", "0" * 64, "teachers.weights")
    with pytest.raises(ConfigError, match=r"has more than one head \(head.head.*, and one is trained"):
        check_begins(config, "timm/repvit_m0_9", 10, (3, 64, 64), weights)


def test_a_generator_learns_through_a_frozen_network(convnet: Path) -> None:
    """Its weights want no gradient; images do."""
    config = teachers(weights=str(convnet), frozen=True)
    network = begun(config, "convnet", 20, SHAPE, 1, public_weights(config))
    x = torch.rand(4, *SHAPE).requires_grad_(True)
    network(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    body = [p for name, p in network.named_parameters() if "head" not in name]
    assert all(parameter.grad is None for parameter in body)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("person", [1, 3])
def test_the_gradients_of_a_head_with_and_without_a_bias_are_those_of_autograd(bias: bool, person: int) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(5, 3, bias=bias)
    features, labels = torch.randn(12, 5), torch.randint(0, 3, (12,))
    rows = torch.arange(12).view(-1, person)
    wanted = torch.zeros(sum(p.numel() for p in head.parameters()), dtype=torch.float64)
    for unit in rows:
        loss = torch.nn.functional.cross_entropy(head(features[unit]), labels[unit])
        flat = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(head.parameters()))]).double()
        wanted += flat * min(1.0, 0.7 / float(flat.norm()))
    source = HeadGradients(head, features, labels, torch.device("cpu"))
    torch.testing.assert_close(source.clipped(rows, 0.7).double(), wanted, rtol=1e-3, atol=1e-4)
    alone = sum((source.clipped(unit[None], 0.7).double() for unit in rows), torch.zeros_like(wanted))
    torch.testing.assert_close(alone, wanted, rtol=1e-3, atol=1e-4)


def test_no_teacher_is_trained_before_every_network_of_a_list_was_looked_at(convnet: Path, tmp_path: Path) -> None:
    config = federation({"architecture": ["convnet", "lenet5"], "weights": str(convnet), "frozen": True})
    with pytest.raises(ConfigError, match="does not hold the weights of lenet5"):
        make_silos(config, tmp_path)
    assert not list(tmp_path.rglob(WEIGHTS_FILE))


def test_an_owner_is_asked_for_the_weights_of_its_own_network_alone(convnet: Path, tmp_path: Path) -> None:
    config = federation({"architecture": ["lenet5", "convnet"], "weights": str(convnet), "frozen": True})
    (report,) = make_silos(config, tmp_path, only=1)
    assert report.architecture == "convnet"


def test_a_damaged_manifest_of_an_earlier_teacher_is_told_and_nothing_is_trained(convnet: Path, tmp_path: Path) -> None:
    """By it alone a file could be recognised as that teacher's."""
    make_silos(federation({}), tmp_path)
    make_silos(federation({"epochs": 2}), tmp_path)
    (past,) = (tmp_path / "1" / "past").glob("*/manifest.json")
    past.write_text("{broken")
    before = (tmp_path / "0" / WEIGHTS_FILE).read_bytes()
    with pytest.raises(ManifestError, match="manifest.*cannot be read.*restore it"):
        make_silos(federation({"weights": str(convnet), "frozen": True}), tmp_path)
    assert (tmp_path / "0" / WEIGHTS_FILE).read_bytes() == before


@pytest.mark.parametrize("when", ["now", "past"])
def test_a_silos_own_teacher_is_not_public(when: str, tmp_path: Path) -> None:
    make_silos(federation({}), tmp_path)
    stolen = tmp_path / "copied.safetensors"
    stolen.write_bytes((tmp_path / "1" / WEIGHTS_FILE).read_bytes())
    if when == "past":
        make_silos(federation({"epochs": 2}), tmp_path)
    with pytest.raises(ConfigError, match="is a teacher of .*, which private images made; name public weights"):
        make_silos(federation({"weights": str(stolen), "frozen": True}), tmp_path)


def test_whoever_reads_the_claim_hears_of_the_public_weights(convnet: Path, tmp_path: Path) -> None:
    records = {**DP, "records": 40, "delta": 1e-3, "epsilon": 8.0}
    tree = {"frozen": True, "weights": str(convnet), "training": records, "batch_size": 8}
    config = federation(tree)
    policy = {"answers": 500, "mechanism": {"kind": "dp_sgd", "epsilon": 9.0, "delta": 1e-3}}
    config = config.model_copy(update={"silos": config.silos.model_copy(update={"policy": policy})})
    make_silos(config, tmp_path)
    weights = public_weights(config.teachers)
    assert weights is not None
    with contextlib.closing(open_gatekeeper(tmp_path / "0")) as gatekeeper:
        said = gatekeeper.describe(DescribeRequest())
    assert said.claim.mechanism == f"dp_sgd from public weights {weights.sha256[:12]}"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"int8": torch.int8}, "holds int8, must hold floating-point numbers"),
        ({"huge": 1e300}, "not finite in float32"),
        ({"variance": -1.0}, "holds negative variances"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(
    change: dict[str, Any], why: str, convnet: Path, tmp_path: Path
) -> None:
    state = load_file(convnet)
    first = next(name for name, tensor in state.items() if tensor.dim() == 4)
    variance = next(name for name in state if name.endswith("running_var"))
    if "int8" in change:
        state[first] = (10 * state[first]).to(torch.int8)
    if "huge" in change:
        state[first] = state[first].double() + 1e300
    if "variance" in change:
        state[variance] = state[variance] - 1e6
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(ConfigError, match=why):
        make_silos(federation({"weights": str(tmp_path / "bad.safetensors"), "frozen": True}), tmp_path / "silos")


def test_a_network_without_a_linear_head_has_none_to_train(tmp_path: Path) -> None:
    network = torchvision.models.squeezenet1_1()
    config = teachers(weights="here", frozen=True, architecture="torchvision/squeezenet1_1")
    weights = Pretrained(network.state_dict(), tmp_path / "here", "0" * 64, "teachers.weights")
    with pytest.raises(ConfigError, match="does not end in a linear layer"):
        check_begins(config, "torchvision/squeezenet1_1", 10, (3, 64, 64), weights)
