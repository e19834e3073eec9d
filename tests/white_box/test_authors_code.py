# SPDX-License-Identifier: Apache-2.0
"""With the quirks on, each step is that of the authors' code, whose values `authors_code.json` holds.

In float64 nothing is left but the rounding of these values. In float32 one step is compared as closely as rounding lets
it, several by the distance moved: the first step of Adam goes by signs of gradients, some of which rounding decides.
"""

import json
from pathlib import Path

import pytest
import torch
from support.authors_setup import AuthorsEngine, draws, networks, patched_for

from fedcpsc.white_box.objective import Terms

VALUES = json.loads(Path(__file__).with_name("authors_code.json").read_text(encoding="utf-8"))
SEEDS = {1: 11, 6: 12, 5: 13}  # of the draws, by number of steps
WITHOUT_GRADIENT = {"conv1.bias", "conv2.bias"}  # a batch norm follows: their gradients are rounding alone


class Phase:
    """What one phase of the engine did: terms of each step, last gradients, and how far each parameter moved."""

    def __init__(self, monkeypatch, part, steps, dtype=torch.float32, log_l2=False):
        patched_for(monkeypatch, dtype)
        self.engine = AuthorsEngine(steps, SEEDS[steps], log_l2=log_l2, dtype=dtype)
        self.network = getattr(self.engine, part)
        self.terms, stacked = [], Terms.stacked
        monkeypatch.setattr(Terms, "stacked", lambda terms: self.terms.append(stacked(terms)) or self.terms[-1])
        before = {name: parameter.detach().clone() for name, parameter in self.network.named_parameters()}
        self.first_mean = self.engine.student.norm.running_mean.clone()
        getattr(self.engine, f"{part}_phase")(torch.Generator())
        learnt = {name: p for name, p in self.network.named_parameters() if name not in WITHOUT_GRADIENT}
        self.gradients = {name: parameter.grad.double() for name, parameter in learnt.items()}
        self.moved = {name: (parameter.detach() - before[name]).double() for name, parameter in learnt.items()}

    def projections(self, vectors):
        """Inner product of each with a fixed random vector, by the parameter's place in the state dict, head last."""
        names = sorted(self.network.state_dict(), key=lambda name: name.startswith("head."))
        streams = {name: torch.Generator().manual_seed(names.index(name)) for name in vectors}
        along = {name: torch.randn(vector.shape, generator=streams[name]) for name, vector in vectors.items()}
        return {name: (vector * along[name]).sum().item() for name, vector in vectors.items()}


def norms(vectors):
    return {name: vector.norm().item() for name, vector in vectors.items()}


def total(distances):
    return sum(distances[name] ** 2 for name in distances if name not in WITHOUT_GRADIENT) ** 0.5


def differ(found, wanted, scales):
    """The largest difference, as a share of the scales."""
    return max(abs(found[name] - wanted[name]) / scales[name] for name in found)


def assert_terms(found, wanted, log_l2, tolerance):
    assert len(found) == len(wanted)
    for terms, values in zip(found, wanted, strict=True):
        l2 = torch.tensor(values["mse_of_logits"], dtype=torch.float64)
        rest = [values.get(name, 0.0) for name in ("bn", "scl", "ce")]  # a term that has no place is 0
        right = [values["total"], values["kd"], l2.log().item() if log_l2 else l2.item(), *rest]
        assert terms.tolist() == pytest.approx(right, rel=tolerance)


def test_this_torch_draws_the_networks_z_and_labels_of_the_values():
    teacher, student = networks()
    made = AuthorsEngine(1, SEEDS[1])
    ((z, y),) = draws(1, SEEDS[1])

    def sum_of(network):
        return sum(tensor.double().sum().item() for tensor in network.state_dict().values())

    sums = {"teacher": sum_of(teacher), "student": sum_of(student), "generator": sum_of(made.generator)}
    sums |= {"z": z.double().sum().item(), "y": int(y.sum())}
    assert sums == pytest.approx({name: VALUES["checksums"][name] for name in sums}, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "part", "steps", "log_l2"),
    [
        ("generator_6_steps", "generator", 6, False),
        ("generator_1_step_log_l2", "generator", 1, True),
        ("student_5_steps", "student", 5, False),
    ],
)
def test_in_float64_every_step_is_that_of_the_authors_code(monkeypatch, values, part, steps, log_l2):
    wanted, phase = VALUES[values], Phase(monkeypatch, part, steps, torch.float64, log_l2)
    assert_terms(phase.terms, wanted["terms_of_each_step"], log_l2, 1e-7)
    gradients, moved = wanted["last_gradient_norm_by_parameter"], wanted["moved_norm_by_parameter"]
    projected, moved_projected = (
        wanted["last_gradient_projection_by_parameter"],
        wanted["moved_projection_by_parameter"],
    )
    assert differ(norms(phase.gradients), gradients, gradients) < 1e-7
    assert differ(phase.projections(phase.gradients), projected, gradients) < 1e-7
    assert differ(norms(phase.moved), moved, moved) < 1e-7
    assert differ(phase.projections(phase.moved), moved_projected, moved) < 1e-4
    if part == "generator":  # the student's statistics move
        norm, counted = phase.engine.student.norm, wanted["student_batch_norm_batches_counted_beyond_start"]
        assert int(norm.num_batches_tracked) == 8 + counted
        by = (norm.running_mean - phase.first_mean).norm().item()
        assert by == pytest.approx(wanted["student_first_norm_running_mean_change_norm"], rel=1e-6)


@pytest.mark.parametrize(
    ("values", "part"),
    [("generator_1_step", "generator"), ("student_1_step", "student")],
)
def test_in_float32_a_step_is_that_of_the_authors_code_but_for_rounding(monkeypatch, values, part):
    wanted, phase = VALUES[values], Phase(monkeypatch, part, 1)
    assert_terms(phase.terms, wanted["terms_of_each_step"], False, 1e-5)
    gradients, moved = wanted["last_gradient_norm_by_parameter"], wanted["moved_norm_by_parameter"]
    assert differ(norms(phase.gradients), gradients, gradients) < 1e-3
    projected, whole = wanted["last_gradient_projection_by_parameter"], dict.fromkeys(gradients, total(gradients))
    assert differ(phase.projections(phase.gradients), projected, whole) < 1e-3
    assert differ(norms(phase.moved), moved, moved) < 0.01


def test_in_float32_six_generator_steps_go_as_far_as_those_of_the_authors_code(monkeypatch):
    wanted, phase = VALUES["generator_6_steps"], Phase(monkeypatch, "generator", 6)
    assert_terms(phase.terms[:1], wanted["terms_of_each_step"][:1], False, 1e-5)
    assert total(norms(phase.moved)) == pytest.approx(total(wanted["moved_norm_by_parameter"]), rel=0.01)
