# SPDX-License-Identifier: Apache-2.0
"""Strided convolutions of which a CPU leaves gradients undefined in bfloat16."""

import copy

import pytest
import torch
from torch import nn

from fedcpsc.models.device import mixed_precision, to_device
from fedcpsc.models.exact_strides import make_strides_exact

CPU = torch.device("cpu")


def spoil_free_memory(shape):
    """Leaves infinities in the memory that tensors of this shape get next."""
    spoilt = [torch.full(shape, float("inf"), dtype=kind) for kind in (torch.float32, torch.bfloat16) for _ in range(4)]
    del spoilt


def gradient(convolution, side):
    """Of a sum of squares of the convolution's outputs, in bfloat16."""
    x = torch.randn(16, convolution.in_channels, side, side, generator=torch.Generator().manual_seed(1))
    spoil_free_memory(convolution.weight.shape)
    with mixed_precision(CPU, "bfloat16"):
        out = convolution(x)
    out.float().square().sum().backward()
    return convolution.weight.grad


@pytest.mark.parametrize(("side", "kernel", "stride"), [(1, 3, 2), (1, 7, 2), (2, 5, 3), (1, 2, 2)])
def test_weights_that_touch_no_pixel_have_no_gradient(side, kernel, stride):
    for _ in range(3):
        torch.manual_seed(2)
        convolution = make_strides_exact(nn.Conv2d(32, 64, kernel, stride, padding=kernel // 2, bias=False))
        exact = copy.deepcopy(convolution)
        found = gradient(convolution, side)
        x = torch.randn(16, 32, side, side, generator=torch.Generator().manual_seed(1))
        exact(x).square().sum().backward()
        torch.testing.assert_close(found, exact.weight.grad, rtol=0.05, atol=0.05)
        untouched = exact.weight.grad == 0
        assert untouched.any()
        assert (found[untouched] == 0).all()


def test_a_whole_resnet_on_small_images_learns_where_it_sees():
    from torchvision.models import resnet18

    torch.manual_seed(3)
    network = to_device(resnet18(num_classes=4), CPU)
    spoil_free_memory(network.layer3[0].conv1.weight.shape)
    with mixed_precision(CPU, "bfloat16"):
        logits = network(torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    logits.float().logsumexp(1).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
    border = network.layer3[0].conv1.weight.grad.clone()
    border[:, :, 1, 1] = 0
    assert not border.any()


def test_nothing_else_changes():
    class Own(nn.Conv2d):
        def forward(self, input):
            return super().forward(input) + 1

    torch.manual_seed(4)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, 2, padding=1), Own(4, 4, 3, 2, padding=1))
    before, x = copy.deepcopy(network), torch.randn(2, 1, 8, 8)
    after = copy.deepcopy(make_strides_exact(make_strides_exact(network)))
    assert torch.equal(after(x), before(x))
    assert list(after.state_dict()) == list(before.state_dict())
    assert [type(module).__name__ for module in after] == ["Conv2d", "Conv2d", "Own"]
    assert type(after[0]) is nn.Conv2d
    with mixed_precision(CPU, "bfloat16"):  # 6, 3 and 2 pixels a side: no stride is larger
        assert torch.equal(after(x), before(x))
        assert after(x).dtype == torch.bfloat16
