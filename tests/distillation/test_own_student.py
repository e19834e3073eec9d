# SPDX-License-Identifier: Apache-2.0
"""A student that is the caller's own module: fitted as a copy, tried before anything is asked, read back with it."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.fakes import FakeSilo
from support.tiny_runs import evaluation, tiny_config
from torch import nn

from fedcpsc.distillation import loop, steps
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, RunError
from fedcpsc.export.export_student import export_run
from fedcpsc.export.plan import Format
from fedcpsc.report.sections.summary import what_was_run
from fedcpsc.runs.read import gather
from fedcpsc.runs.student import load_student


class Small(nn.Module):
    """What users write: a `view` that needs channels first, dropout, tied layers, a frozen one."""

    def __init__(self, classes=3, side=8):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.again = self.second
        self.frozen = nn.Conv2d(6, 6, 1).requires_grad_(False)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6 * (side // 2) ** 2, classes)

    def forward(self, x):
        x = torch.relu(self.frozen(self.again(torch.relu(self.second(torch.relu(self.first(x)))))))
        x = nn.functional.max_pool2d(x, 2)
        return self.head(self.drop(x.view(x.size(0), -1)))


def run(folder, student, resume=False, **changes):
    silos = LocalTransport([FakeSilo("silo-0"), FakeSilo("silo-1")])
    return distill(tiny_config(**changes), silos, folder, resume=resume, evaluation=evaluation(), student=student)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(4)
    return Small()


@pytest.fixture(scope="module")
def finished(module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "own"
    before = copy.deepcopy(module.state_dict())
    result = run(folder, module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items()), "it was changed"
    return folder, result


def test_a_copy_is_fitted_and_the_given_module_stays_as_it_is(finished, module):
    folder, result = finished
    fitted, given = load_file(folder / "student.safetensors"), module.state_dict()
    assert fitted.keys() == given.keys(), "the file opens where the class is"
    assert not torch.equal(fitted["first.weight"], given["first.weight"])
    assert torch.equal(fitted["frozen.weight"], given["frozen.weight"])
    assert torch.equal(fitted["again.weight"], fitted["second.weight"])
    assert result["student"]["architecture"] == "Small"
    assert result["student"]["own_module"] is True
    assert result["student"]["accuracy"] is not None


def test_it_begins_with_the_weights_that_it_was_given(tmp_path, module):
    run(tmp_path / "run", module, student__steps_per_round=1, student__final_steps=0, student__learning_rate=1e-9)
    fitted = load_file(tmp_path / "run/student.safetensors")
    for name, value in module.state_dict().items():
        torch.testing.assert_close(fitted[name], value, atol=1e-6, rtol=0)


def test_the_fitted_copy_is_read_back_with_such_a_module_and_not_without(finished):
    facts = gather(finished[0])
    student = load_student(facts, Small)
    assert isinstance(student.network.stored, Small)
    assert torch.equal(
        student.network.stored.first.weight, load_file(finished[0] / "student.safetensors")["first.weight"]
    )
    assert student.network(torch.zeros(1, 1, 8, 8)).shape == (1, 3)
    with pytest.raises(RunError, match=r"is Small, a module of the caller's own; from Python, give such a module"):
        load_student(facts)
    with pytest.raises(RunError, match="is Small, a module of the caller's own, not Linear;"):
        load_student(facts, nn.Linear(2, 2))


@pytest.mark.parametrize("file_format", list(Format))
def test_it_is_exported_where_torch_can_trace_it(finished, tmp_path, file_format):
    pytest.importorskip("onnxscript")
    export_run(finished[0], file_format, tmp_path, module=Small())
    check = json.loads((tmp_path / "export.json").read_text())["formats"][file_format.value]
    assert check["max_difference"] <= check["tolerance"]
    card = (tmp_path / "README.md").read_text()
    assert "| network | Small, a module of the caller's own, " in card
    assert "build_classifier" not in card


def test_a_module_that_torch_cannot_trace_is_refused_in_words_and_has_its_weights(tmp_path):
    class Untraceable(Small):
        def forward(self, x):
            y = super().forward(x)
            return y * (1.0 if x.detach().sum().item() > -1e9 else 2.0)

    run(tmp_path / "run", Untraceable)
    with pytest.raises(RunError, match=r"torch cannot trace Untraceable.*use --format safetensors"):
        export_run(tmp_path / "run", Format.TORCH_EXPORT, module=Untraceable())
    export_run(tmp_path / "run", Format.SAFETENSORS, module=Untraceable())


def test_a_run_that_was_stopped_ends_with_the_same_student(tmp_path, module, monkeypatch, finished):
    """Dropout draws from torch's global generator: it too follows from the run's seed."""
    stopped = loop.save_checkpoint

    def stops(*args):
        stopped(*args)
        if args[3].asked == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", module)
    monkeypatch.undo()
    for given, what in ((None, "Small -> the configured architecture"), (nn.Linear(1, 1), "Small -> Linear")):
        with pytest.raises(RunError, match=f"began with another student: {what}; resume it from Python"):
            run(tmp_path / "run", given, resume=True)
    torch.manual_seed(77)
    run(tmp_path / "run", module, resume=True)
    whole = load_file(finished[0] / "student.safetensors")
    for name, value in load_file(tmp_path / "run/student.safetensors").items():
        assert torch.equal(value, whole[name]), name


def test_a_run_of_the_configured_architecture_is_not_resumed_with_a_module(tmp_path, module):
    run(tmp_path / "run", None)
    with pytest.raises(RunError, match="the configured architecture -> Small; resume it with the one"):
        run(tmp_path / "run", module, resume=True)
    assert not (tmp_path / "run/student.json").exists()


def test_its_fellows_are_the_configured_ones_or_convnets(tmp_path, module, monkeypatch):
    made = []
    save = loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", lambda folder, members, *rest: made.append(members))
    run(tmp_path / "a", module, student__committee=3)
    run(tmp_path / "b", module, student__fellows="lenet5")
    monkeypatch.setattr(loop, "save_checkpoint", save)
    kinds = [[type(member.network).__name__ for member in members] for members in (made[0], made[-1])]
    assert kinds == [["Adapted", "ConvNet", "ConvNet"], ["Adapted", "LeNet5"]]


class Wrong(nn.Module):
    """Gives whatever it is told to."""

    def __init__(self, give):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64, 3))
        self.give = give

    def forward(self, x):
        return self.give(self, x.flatten(1) @ self.weight)


@pytest.mark.parametrize(
    ("student", "why"),
    [
        (lambda: Small(classes=4), r"gives float32\[4, 4\] in training.*must give float32\[4, 3\].*3 classes"),
        (lambda: Small(side=16), r"failed in training on float32\[4, 1, 8, 8\] \(mat1 and mat2"),
        (lambda: Wrong(lambda self, y: y.squeeze(0)), r"gives float32\[3\] in evaluation for images \[1, 1, 8, 8\]"),
        (lambda: Wrong(lambda self, y: (y, y)), "gives tuple, must give one tensor of logits"),
        (lambda: Wrong(lambda self, y: y.detach()), "its logits have no gradient"),
        (lambda: Wrong(lambda self, y: y.detach() + torch.zeros(3, requires_grad=True)), "no gradient reaches"),
        (lambda: Wrong(lambda self, y: y / 0), "its logits are not finite in training"),
        (lambda: Wrong(lambda self, y: y.argmax(1)), r"gives int64\[4\] in training"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "layers whose sizes are not known yet"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3).requires_grad_(False)), "no parameter that requires"),
        (lambda: 5, r"student='int': must be a torch\.nn\.Module"),
        ("resnet18", r"student='str': must be a torch\.nn\.Module"),
    ],
)
def test_a_module_that_cannot_be_fitted_is_told_before_anything_is_asked(tmp_path, student, why):
    silo = FakeSilo("silo-0")
    with pytest.raises(ConfigError, match=why):
        distill(tiny_config(silos__count=1), LocalTransport([silo]), tmp_path / "run", student=student)
    assert silo.queries == []
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_are_told(tmp_path, module):
    broken = copy.deepcopy(module)
    with torch.no_grad():
        broken.first.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ConfigError, match=r"student='Small': first\.weight is not finite"):
        run(tmp_path / "run", broken)


def test_several_processes_refuse_it(tmp_path, module):
    with pytest.raises(ConfigError, match=r"runtime\.processes=2: the other processes cannot make Small"):
        run(tmp_path / "run", module, runtime__processes=2)


def test_a_contrast_needs_a_linear_layer_whose_input_are_features(tmp_path):
    by_convolution = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ConfigError, match=r"student\.contrastive_weight=0\.5: .*Sequential ends in no"):
        run(tmp_path / "run", by_convolution, student__contrastive_weight=0.5)
    run(tmp_path / "without", by_convolution)


def test_in_bfloat16_with_a_contrast_it_learns(tmp_path, module):
    changes = {"student__precision": "bfloat16", "student__contrastive_weight": 0.1, "student__average": 0.9}
    run(tmp_path / "run", module, runtime__emulation=True, **changes)
    fitted = load_file(tmp_path / "run/student.safetensors")
    assert fitted["first.weight"].dtype == torch.float32
    assert all(value.isfinite().all() for value in fitted.values())


def test_weights_that_layers_share_are_averaged_once(tmp_path, module, monkeypatch):
    """`first` is no layer's twin: it moves by (1 - decay) of the way, and so must the twins."""
    means = []
    plain = steps._move_average

    def noted(average, network, decay):
        before = {name: value.clone() for name, value in average.state_dict().items()}
        plain(average, network, decay)
        means.append((before, copy.deepcopy(average.state_dict()), copy.deepcopy(network.state_dict()), decay))

    monkeypatch.setattr(steps, "_move_average", noted)
    run(tmp_path / "run", module, student__average=0.75, student__final_steps=2)
    assert len(means) == 2
    for before, after, network, decay in means:
        for name in ("network.first.weight", "network.second.weight", "network.again.weight"):
            torch.testing.assert_close(after[name], decay * before[name] + (1 - decay) * network[name])


def test_the_report_names_it_also_of_a_run_that_has_not_finished(tmp_path, module, finished):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    for made in (finished[0], folder):
        (block,) = what_was_run(gather(made)).blocks
        assert "Small, a module of the caller's own, committee of 2" in dict(block.items)["student"]
        (folder / "result.json").unlink(missing_ok=True)
