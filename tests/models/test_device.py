# SPDX-License-Identifier: Apache-2.0
"""Where networks run."""

import pytest
import torch

from fedcpsc.errors import ConfigError
from fedcpsc.models.device import choose_device, forward_float32, mixed_precision, to_device
from fedcpsc.models.registry import build_classifier


@pytest.mark.parametrize(
    ("wanted", "gpu", "chosen"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_gpu_is_taken_where_there_is_one_and_it_is_wanted(wanted, gpu, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device(wanted).type == chosen


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"runtime\.device='cuda': no GPU is visible to torch; use auto or cpu"):
        choose_device("cuda")


def test_on_a_cpu_a_network_is_placed_with_channels_last_and_computes_the_same():
    x = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    plain = build_classifier("convnet", 4, (1, 12, 12), 8, seed=1)
    there = to_device(build_classifier("convnet", 4, (1, 12, 12), 8, seed=1), torch.device("cpu"))
    convolution = there.body[-3].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.is_contiguous()
    for network in (plain, there):
        network(x).logsumexp(1).sum().backward()
    torch.testing.assert_close(there(x), plain(x), rtol=1e-4, atol=1e-5)
    for before, now in zip(plain.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(now.grad, before.grad, rtol=1e-3, atol=1e-4)


def test_a_reduced_pass_rounds_and_hands_back_float32():
    network = to_device(build_classifier("convnet", 4, (1, 12, 12), 8, seed=1), torch.device("cpu")).eval()
    x = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    logits, features = forward_float32(network, x, "float32")
    assert torch.equal(logits, network(x))
    rounded, rounded_features = forward_float32(network, x, "bfloat16")
    assert rounded.dtype == rounded_features.dtype == torch.float32
    assert not torch.equal(rounded, logits)
    for exact, near in ((logits, rounded), (features, rounded_features)):
        assert (near - exact).norm() < 0.02 * exact.norm()


def test_a_reduced_pass_sees_what_the_optimiser_did():
    """Within one autocast torch keeps the rounded weights: so each pass enters its own."""
    network = build_classifier("convnet", 4, (1, 12, 12), 8, seed=1)
    x = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    before, _ = forward_float32(network, x, "bfloat16")
    before.square().sum().backward()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(3.0)
    after, _ = forward_float32(network, x, "bfloat16")
    assert torch.equal(after, torch.full_like(after, 3.0))


def test_float32_is_no_autocast():
    with mixed_precision(torch.device("cpu"), "float32"):
        assert not torch.is_autocast_enabled("cpu")
    with mixed_precision(torch.device("cpu"), "bfloat16"):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
