# SPDX-License-Identifier: Apache-2.0
"""Scattering coefficients against a slow oracle in space, and what they are for."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedcpsc.models import scattering
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.scattering import ScatteringClassifier, morlet_bank, shared_features


def coefficients(x):
    with torch.no_grad():
        return ScatteringClassifier(10, tuple(x.shape[1:])).coefficients(x)


def test_wavelets_have_no_mean_and_look_where_they_should():
    bands = morlet_bank(64, 64)
    assert bands.shape == (2, 8, 64, 64)
    assert bands[:, :, 0, 0].abs().max() < 1e-6
    for scale in range(2):
        for angle in range(8):
            row, column = divmod(int(bands[scale, angle].argmax()), 64)
            v, u = (2 * math.pi * (k - 64 if k > 32 else k) / 64 for k in (row, column))
            # subtracting the mean pushes the peak outwards a little; the grid is 0.1 wide
            assert math.hypot(u, v) == pytest.approx(0.75 * math.pi / 2**scale, abs=0.2)
            assert math.remainder(math.atan2(v, u) - angle * math.pi / 8, 2 * math.pi) == pytest.approx(0, abs=0.1)


def test_a_flat_image_has_nothing_but_its_mean():
    maps = coefficients(torch.full((1, 1, 16, 16), 0.3))
    assert torch.allclose(maps[:, 0], torch.tensor(0.3))
    assert maps[:, 1:].abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 15, 22)])
def test_coefficients_are_those_of_the_definition(shape):
    """Full resolution throughout and a plain low-pass; thinning out early may only alias a little."""
    generator = torch.Generator().manual_seed(1)
    x = F.avg_pool2d(torch.rand(2, shape[0], shape[1] + 2, shape[2] + 2, generator=generator) * 2 - 1, 3, 1)
    channels, height, width = shape
    padded = F.pad(x, (4, 4 + width % 2, 4, 4 + height % 2), mode="replicate")
    bands = morlet_bank(*padded.shape[2:])

    def band(maps, scale, angle):
        return torch.fft.ifft2(torch.fft.fft2(maps) * bands[scale, angle]).abs()

    offset = torch.arange(-4, 5)
    kernel = torch.exp(-0.5 * (offset / 1.6) ** 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    paths = [padded]
    paths += [band(padded, scale, angle) for scale in range(2) for angle in range(8)]
    paths += [band(band(padded, 0, first), 1, second) for first in range(8) for second in range(8)]
    smooth = [F.conv2d(path.flatten(0, 1)[:, None], kernel[None, None], stride=4) for path in paths]
    wanted = torch.stack([s[:, 0, : height // 4, : width // 4].unflatten(0, (2, channels)) for s in smooth], 2)
    found = coefficients(x).unflatten(1, (channels, 81))
    assert found.shape == wanted.shape
    by_path = (found - wanted, wanted)
    missed, size = (torch.linalg.vector_norm(part, dim=(0, 1, 3, 4)) for part in by_path)
    error = missed / size
    assert error[:9].max() < 1e-5  # order 0 and the fine scale are exact
    assert error.max() < 0.05


def test_a_small_shift_moves_features_less_than_pixels():
    x = F.avg_pool2d(torch.rand(4, 1, 34, 34, generator=torch.Generator().manual_seed(2)) * 2 - 1, 3, 1)
    here, there = x[..., 2:30, 2:30], x[..., 2:30, 3:31]
    a, b = coefficients(here), coefficients(there)
    assert (a - b).norm() / a.norm() < 0.5 * (here - there).norm() / here.norm()


def test_only_the_head_learns():
    network = build_classifier("scattering", 10, (1, 28, 28), seed=1)
    assert [name for name, _ in network.named_parameters()] == ["head.weight", "head.bias"]
    assert network.head.weight.shape == (10, 81 * 7 * 7)
    assert network.only_head_learns  # the filters are mathematics, not weights
    assert not build_classifier("lenet5", 10, (1, 28, 28), seed=1).only_head_learns


def test_networks_that_see_the_same_images_in_turn_share_their_features(monkeypatch):
    one, other = (build_classifier("scattering", 3, (1, 12, 12), seed=seed).eval() for seed in (1, 2))
    images = [torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    seen, coefficients = [], ScatteringClassifier.coefficients
    monkeypatch.setattr(
        ScatteringClassifier, "coefficients", lambda self, x: seen.append(len(x)) or coefficients(self, x)
    )
    alone = [[network(x).detach() for network in (one, other)] for x in images]
    assert len(seen) == 4
    with shared_features():
        with torch.inference_mode():
            by_network = [[network(x.clone()) for x in images] for network in (one, other)]
        together = [*zip(*by_network, strict=True)]
        assert len(seen) == 6
        one(images[1]).sum().backward()  # what learns computes its own
    assert len(seen) == 7
    with torch.inference_mode():
        one(images[1])
    assert len(seen) == 8
    for given, wanted in zip(together, alone, strict=True):
        for a, b in zip(given, wanted, strict=True):
            assert torch.equal(a, b)


def test_no_more_features_are_shared_than_memory_is_for(monkeypatch):
    network = build_classifier("scattering", 3, (1, 12, 12), seed=1).eval()
    monkeypatch.setattr(scattering, "_KEPT_BYTES", 2 * 5 * network.feature_size * 4)
    with shared_features(), torch.inference_mode():
        for n in range(6):
            network(torch.full((5, 1, 12, 12), n / 6))
        assert len(scattering._shared.get()) == 2
