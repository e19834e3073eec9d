# SPDX-License-Identifier: Apache-2.0
"""Students of any library: built for the federation's images and classes, their features found, their weights read."""

import hashlib
import sys

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from support.tiny_runs import tiny_config
from torch import nn

from fedcpsc.errors import ConfigError
from fedcpsc.models.adapted import Adapted, head_of, stored_tensors
from fedcpsc.models.pretrained import read_pretrained
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.student_check import check_student
from fedcpsc.models.students import Start, build_fellow, build_student
from fedcpsc.student_config import StudentConfig

COLOUR, GREY, DIGIT = (3, 32, 32), (1, 32, 32), (1, 8, 8)
VGG = "torchvision/vgg11"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def student(architecture, shape=COLOUR, classes=5, seed=1, start=None, **more):
    return build_student(StudentConfig(architecture=architecture, **more), classes, shape, seed, start)


def check(architecture="torchvision/resnet18", shape=COLOUR, classes=5, start=None, **changes):
    told = []
    named = {"student__architecture": architecture, **changes}
    check_student(tiny_config(**named), classes, shape, start, told.append)
    return told


def pixels(shape, count=2):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("torchvision/resnet18", 512),
        ("torchvision/mobilenet_v3_small", 1024),
        ("torchvision/densenet121", 1024),
        ("torchvision/vit_b_16", 768),
        ("timm/resnet18", 512),
        ("timm/vit_tiny_patch16_224", 192),
        ("timm/mobilenetv3_small_050", 1024),
    ],
)
def test_a_network_of_a_library_gives_logits_and_the_input_of_its_last_layer(architecture, size):
    if architecture.startswith("timm"):
        pytest.importorskip("timm")
    network = student(architecture).eval()
    logits, features = network.forward_with_features(pixels(COLOUR))
    assert (logits.shape, features.shape) == ((2, 5), (2, size))
    assert torch.equal(network(pixels(COLOUR)), logits)
    head = network.stored.get_submodule(network.head_name)
    torch.testing.assert_close(head(features), logits)


def test_without_normalisation_it_is_the_librarys_own_network():
    network = student("torchvision/resnet18").eval()
    plain = torchvision.models.resnet18(num_classes=5).eval()
    plain.load_state_dict(stored_tensors(network))
    assert torch.equal(plain(pixels(COLOUR)), network(pixels(COLOUR)))


def test_normalisation_is_a_part_of_the_network_and_not_of_its_file():
    network = student("torchvision/resnet18", normalisation="imagenet").eval()
    plain = torchvision.models.resnet18(num_classes=5).eval()
    plain.load_state_dict(stored_tensors(network))
    prepare = torchvision.transforms.Normalize(*IMAGENET)
    wanted = plain(prepare((pixels(COLOUR) + 1) / 2))
    torch.testing.assert_close(network(pixels(COLOUR)), wanted, atol=1e-4, rtol=1e-4)


def test_a_grey_image_goes_in_as_three_equal_channels():
    network = student("torchvision/resnet18", GREY, normalisation="imagenet").eval()
    colour = student("torchvision/resnet18", COLOUR, normalisation="imagenet").eval()
    grey = pixels(GREY)
    assert torch.equal(network(grey), colour(grey.repeat(1, 3, 1, 1)))


def test_other_numbers_of_channels_have_another_first_layer():
    network = student("torchvision/resnet18", (4, 32, 32))
    assert network.stored.conv1.in_channels == 4
    assert network(pixels((4, 32, 32))).shape == (2, 5)


def test_a_network_of_this_project_may_be_normalised_and_gives_its_own_features():
    config = StudentConfig(width=4, normalisation={"mean": [0.2], "std": [0.3]})
    network = build_student(config, 3, (1, 8, 8), 7).eval()
    plain = build_classifier("convnet", 3, (1, 8, 8), 4, seed=7).eval()
    prepared = ((pixels((1, 8, 8)) + 1) / 2 - 0.2) / 0.3
    for found, wanted in zip(
        network.forward_with_features(pixels((1, 8, 8))), plain.forward_with_features(prepared), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert network.stored.state_dict().keys() == plain.state_dict().keys()
    assert not isinstance(build_student(StudentConfig(), 3, (1, 8, 8), 7), Adapted)


def test_the_seed_decides_the_initialisation_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b, c = (student("torchvision/squeezenet1_1", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["network.features.0.weight"], c["network.features.0.weight"])


def test_to_look_for_the_head_changes_nothing():
    network = torchvision.models.resnet18(num_classes=3).train()
    network.bn1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert head_of(network, pixels(COLOUR)) == "fc"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not network.bn1.training
    assert head_of(torchvision.models.squeezenet1_1(num_classes=3), pixels(COLOUR)) is None


def test_fellows_are_small_where_the_configuration_says_so_and_expect_no_normalisation_of_its():
    config = StudentConfig(architecture="torchvision/resnet18", normalisation="imagenet", width=4)
    alike = build_fellow(config, 5, GREY, 2)
    assert isinstance(alike, Adapted)
    assert alike.normalised
    small = build_fellow(config.model_copy(update={"fellows": "convnet"}), 5, GREY, 2)
    assert type(small).__name__ == "ConvNet"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture": "resnet81"}, r"student\.architecture='resnet81': unknown; the nearest is 'resnet18'; use"),
        ({"architecture": "mobilenet_v2"}, "write torchvision/mobilenet_v2, or use one of convnet"),
        ({"architecture": "torchvision/resnet81"}, "is unknown to torchvision; nearest are resnet18, "),
        ({"architecture": "hub/resnet18"}, "'hub' is no library of networks; write NAME, torchvision/NAME or"),
        ({"architecture": "torchvision/googlenet"}, "is unknown to torchvision"),
        ({"architecture": VGG, "shape": DIGIT}, r"cannot take images of 8x8 pixels and 1 channels \(Given"),
        ({"architecture": "torchvision/vit_b_16", "shape": (3, 24, 24)}, "cannot take images of 24x24 pixels and 3"),
        ({"student__fellows": "convnett"}, r"student\.fellows='convnett': unknown; the nearest is 'convnet'"),
        ({"student__fellows": VGG, "shape": DIGIT}, r"student\.fellows='torchvision/vgg11': cannot take"),
        (
            {"architecture": "convnet", "shape": (1, 8, 8), "student__normalisation": "imagenet"},
            r"student\.normalisation=\[.*\]: has 3 means, and convnet takes images of 1 channels",
        ),
        (
            {"architecture": "torchvision/squeezenet1_1", "student__contrastive_weight": 1.0},
            r"student\.contrastive_weight=1\.0: contrasts features, and torchvision/squeezenet1_1 ends in no",
        ),
        (
            {"student__fellows": "torchvision/squeezenet1_1", "synthesis__contrastive_weight": 1.0},
            r"synthesis\.contrastive_weight=1\.0: contrasts features, and torchvision/squeezenet1_1",
        ),
        ({"student__batch_size": 1}, r"student\.batch_size=1: batch norm, which torchvision/resnet18 has, needs"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_told_with_the_key_and_the_remedy(changes, why):
    with pytest.raises(ConfigError, match=why):
        check(**changes)


def test_that_an_image_shrinks_to_one_pixel_is_told():
    assert "of 8x8 pixels its last convolutions see a single one" in check(shape=(1, 8, 8))[0]
    assert check(shape=(3, 64, 64)) == []
    assert check("resnet18_narrow", shape=(1, 8, 8)) == []


def test_a_network_that_computes_while_it_is_built_is_checked_all_the_same():
    check("torchvision/regnet_y_400mf")


def test_norms_of_a_librarys_own_are_refused_by_several_processes():
    pytest.importorskip("timm")
    check("timm/efficientnet_b0")
    with pytest.raises(ConfigError, match=r"runtime\.processes=2: cannot share a batch of timm/.*BatchNormAct2d"):
        check("timm/efficientnet_b0", runtime__processes=2)
    check(runtime__processes=2)


def test_timm_is_asked_for_by_the_name_of_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"needs timm; install it: pip install 'fedcpsc\[timm\]'"):
        check("timm/resnet18")


@pytest.fixture(scope="module")
def thousand():
    """A network for other classes, its weights as public ones come."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        return torchvision.models.resnet18(num_classes=20).eval()


@pytest.fixture
def weights(thousand, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    save_file(thousand.state_dict(), path)
    return path


def test_pretrained_weights_are_taken_but_for_the_head_of_other_classes(weights, thousand):
    start = Start(weights=read_pretrained(str(weights)))
    network = student("torchvision/resnet18", start=start)
    untouched = student("torchvision/resnet18")
    for name, value in network.stored.state_dict().items():
        wanted = untouched.stored.state_dict() if name.startswith("fc.") else thousand.state_dict()
        assert torch.equal(value, wanted[name]), name
    assert start.weights.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    (line, *_) = check(start=start)
    assert line == (
        "student.weights: of resnet18.safetensors 120 tensors are taken; the head (fc.weight, fc.bias) stays at its"
        " initialisation: in the file it is for 20 classes"
    )
    same = check(start=start, classes=20)
    assert "122 tensors are taken: all of the network's, its head's included" in same[0]


@pytest.mark.parametrize("how", ["torch.save", "half", "wrapped", "folder", "no head", "no counters", "grey"])
def test_weights_are_read_in_the_forms_that_they_come_in(how, weights, thousand, tmp_path):
    state, path, shape = dict(thousand.state_dict()), tmp_path / "given", COLOUR
    if how == "half":
        state = {key: value.half() for key, value in state.items()}
    if how == "wrapped":
        state = {f"module.{key}": value for key, value in state.items()}
    if how == "no head":
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    if how == "no counters":
        state = {key: value for key, value in state.items() if not key.endswith("tracked")}
    if how == "grey":
        shape = GREY
    if how == "torch.save":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif how == "folder":
        path.mkdir()
        save_file(state, path / "model.safetensors")
    else:
        save_file(state, path)
    start = Start(weights=read_pretrained(str(path)))
    network = student("torchvision/resnet18", shape, start=start)
    found = network.stored.state_dict()["layer1.0.conv1.weight"]
    torch.testing.assert_close(found, thousand.state_dict()["layer1.0.conv1.weight"], atol=1e-3, rtol=0)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, r"cannot be read \(No such file or directory\); check the path.*never downloaded"),
        (b"hello, world", "is neither a safetensors file nor one of torch.save"),
        (b"\x40\0\0\0\0\0\0\0{broken", "is a damaged safetensors file"),
        (nn.Linear(2, 2), "holds more than tensors, such as a whole model: a pickle"),
        ({"a": {"w": torch.zeros(1)}, "b": {"w": torch.zeros(1)}}, r"holds several state dicts \(a, b\)"),
        ({"w": torch.tensor([float("inf")])}, "w holds numbers that are not finite"),
        ("folder", "is a folder without model.safetensors or pytorch_model.bin"),
    ],
)
def test_files_that_are_no_weights_are_told(content, why, tmp_path):
    path = tmp_path / "given"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=f"student\\.weights=.*{why}"):
        read_pretrained(str(path))


def test_weights_of_another_network_are_refused_with_those_that_they_look_like(weights):
    start = Start(weights=read_pretrained(str(weights)))
    told = (
        r"does not hold the weights of torchvision/resnet34 \(layer1\.2\.conv1\.weight is missing, and \d+ more do not"
        r" fit\); they look like those of torchvision/resnet18, torchvision/resnet34 or .*: set student\.architecture"
    )
    with pytest.raises(ConfigError, match=told):
        check("torchvision/resnet34", start=start)


def test_weights_of_a_width_or_a_number_of_channels_other_than_the_students_are_refused(tmp_path):
    save_file(build_classifier("convnet", 5, (3, 8, 8), 8, seed=1).state_dict(), tmp_path / "given")
    start = Start(weights=read_pretrained(str(tmp_path / "given")))
    check("convnet", (3, 8, 8), start=start, student__width=8)
    with pytest.raises(
        ConfigError, match=r"the weights of convnet \(stem\.weight is \[8, 3, 3, 3\], must be \[4, 3, 3, 3\]"
    ):
        check("convnet", (3, 8, 8), start=start)
