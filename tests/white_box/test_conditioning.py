# SPDX-License-Identifier: Apache-2.0
"""Where a label enters the generator, and which pseudo-labels a generator has that sees none."""

import pytest
import torch
from support.tiny_white_box import tiny

from fedcpsc.models.generator import ConditionalNorm
from fedcpsc.models.registry import build_classifier
from fedcpsc.white_box.conditioning import PlainNorm, build_conditioned
from fedcpsc.white_box.engine import Engine
from fedcpsc.white_box.plan import GeneratorPlan


@pytest.mark.parametrize("side", [8, 64])
@pytest.mark.parametrize(
    ("condition", "norm", "by_label"),
    [("cfe", ConditionalNorm, True), ("input", PlainNorm, True), ("none", PlainNorm, False)],
)
def test_images_follow_the_label_by_the_norms_or_beside_z_or_not_at_all(condition, norm, by_label, side):
    plan = GeneratorPlan(nz=8, ngf=4, condition=condition)
    generator = build_conditioned(plan, 3, (1, side, side), seed=1).eval()
    norms = [module for module in generator.modules() if isinstance(module, ConditionalNorm | PlainNorm)]
    assert norms
    assert all(isinstance(module, norm) for module in norms)
    stream = torch.Generator().manual_seed(2)
    for module in generator.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, generator=stream)
    z = torch.randn(2, 8, generator=stream)
    with torch.no_grad():
        first, second = (generator(z, torch.full((2,), label)) for label in (0, 2))
    assert first.shape == (2, 1, side, side)
    assert torch.equal(first, second) != by_label


def test_without_a_label_the_pseudo_labels_are_the_classes_that_the_teacher_sees():
    logits, y = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]]), torch.tensor([2, 2])
    teacher = build_classifier("convnet", 3, (1, 8, 8), 4, seed=7)
    for condition, wanted in (("cfe", [2, 2]), ("input", [2, 2]), ("none", [1, 0])):
        config = tiny(generator={"nz": 8, "ngf": 4, "condition": condition})
        made = Engine(config, teacher, torch.device("cpu"))
        assert made._pseudo_labels(y, logits).tolist() == wanted
        made.round(torch.Generator().manual_seed(1))  # it learns
