# SPDX-License-Identifier: Apache-2.0
"""The conditional generator: shapes, range, and that the category really enters."""

import pytest
import torch

from fedcpsc.models.generator import ConditionalGenerator, ConditionalNorm


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 5, 7)])
def test_images_fit_the_silos(shape):
    torch.manual_seed(0)
    images = ConditionalGenerator(16, 10, shape, 4)(torch.randn(6, 16), torch.arange(6))
    assert images.shape == (6, *shape)
    assert images.abs().max() <= 1


def test_conditional_norm_is_batch_norm_until_a_class_learns_its_own_scale():
    torch.manual_seed(0)
    norm, x = ConditionalNorm(3, 2), torch.randn(8, 3, 4, 4) * 5 + 2
    y = torch.tensor([0, 1] * 4)
    plain = norm(x, y)
    expected = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(plain, expected)
    with torch.no_grad():
        norm.scale.weight[1] = 3.0
        norm.shift.weight[1] = -1.0
    changed = norm(x, y)
    torch.testing.assert_close(changed[y == 0], expected[y == 0])
    torch.testing.assert_close(changed[y == 1], 3 * expected[y == 1] - 1)


def test_each_class_has_embeddings_that_learn_from_its_images_alone():
    torch.manual_seed(0)
    generator = ConditionalGenerator(8, 5, (1, 8, 8), 4)
    generator(torch.randn(4, 8), torch.tensor([1, 1, 3, 3]))[0].sum().backward()  # an image of class 1
    touched = generator.norm3.scale.weight.grad.abs().sum(1) > 0
    assert touched.tolist() == [False, True, False, False, False]
