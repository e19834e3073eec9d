# SPDX-License-Identifier: Apache-2.0
"""A linear classifier on scattering coefficients: the features are mathematics, so that nothing but the head is learnt.

Bruna & Mallat 2013 (arXiv 1203.1513); for training with differential privacy Tramer & Boneh 2021 (arXiv 2011.11660): a
convex model with few directions to noise, whose features owe nothing to any data.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcpsc.models.classifier import HeadedClassifier

__all__ = ["ScatteringClassifier", "morlet_bank", "shared_features"]

_SCALES = 2  # J: maps are 2^J = 4 times smaller than images
_ANGLES = 8  # L
_STRIDE = 2**_SCALES
_PATHS = 1 + _SCALES * _ANGLES + _ANGLES**2 * _SCALES * (_SCALES - 1) // 2  # 81: orders 0, 1 and 2
_GROUPS = 27  # of three neighbouring paths, as Tramer & Boneh
# images whose maps are computed together on a CPU: those of more fall out of its cache, and take twice as long
_CPU_PIECE = 16


_Shown: TypeAlias = deque[tuple[Tensor, Tensor]]  # images, and their features
_shared: ContextVar[_Shown | None] = ContextVar("shared", default=None)
_KEPT_BYTES = 2**28  # of features: those of a query of the usual size, with room to spare


@contextmanager
def shared_features() -> Iterator[None]:
    """Within, networks in inference mode that are shown the same few batches in turn compute their features once.

    For a federation that is simulated in one process: its silos' teachers answer about the same images in turn.
    """
    token = _shared.set(deque())
    try:
        yield
    finally:
        _shared.reset(token)


class ScatteringClassifier(HeadedClassifier):
    """|x * psi| * phi and ||x * psi| * psi'| * phi, J = 2 scales and L = 8 angles, normalised in groups; a linear head.

    Args:
        classes: K.
        image_shape: (C, H, W), sides of at least 4; sides that are no multiple of 4 lose their last row or column of
            coefficients.
    """

    bands: Tensor
    rows: Tensor
    columns: Tensor
    rows_halved: Tensor
    columns_halved: Tensor

    def __init__(self, classes: int, image_shape: tuple[int, int, int]) -> None:
        channels, height, width = image_shape
        super().__init__(classes, image_shape, channels * _PATHS * (height // _STRIDE) * (width // _STRIDE))
        # a margin against the circle that FFT closes, and even sides
        self._margin = (_STRIDE, _STRIDE + width % 2, _STRIDE, _STRIDE + height % 2)
        bands = morlet_bank(height + sum(self._margin[2:]), width + sum(self._margin[:2]))
        self.register_buffer("bands", bands, persistent=False)
        for suffix, step in (("", 1), ("_halved", 2)):
            self.register_buffer(f"rows{suffix}", _low_pass(height, step), persistent=False)
            self.register_buffer(f"columns{suffix}", _low_pass(width, step), persistent=False)
        self.norm = nn.GroupNorm(_GROUPS, channels * _PATHS, affine=False)

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C * 81 * (H // 4) * (W // 4)]."""
        shared = (
            _shared.get() if torch.is_inference_mode_enabled() else None
        )  # other tensors may be asked for gradients
        for images, known in shared or ():
            if torch.equal(images, x):
                return known
        features: Tensor = self.norm(self.coefficients(x)).flatten(1)
        if shared is not None:
            shared.append((x.clone(), features))
            while sum(each.nbytes for _, each in shared) > _KEPT_BYTES:
                shared.popleft()
        return features

    def coefficients(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C * 81, H // 4, W // 4], a channel's paths side by side; not negative from order 1 on."""
        pieces = torch.split(x, _CPU_PIECE) if x.device.type == "cpu" else (x,)
        return torch.cat([self.coefficients_at_once(piece) for piece in pieces])

    def coefficients_at_once(self, x: Tensor) -> Tensor:
        """The same of all images together: slower on a CPU from some 64 on."""
        x = F.pad(x, self._margin, mode="replicate")
        spectrum = torch.fft.fft2(x)[:, :, None]  # [B, C, 1, H', W']
        fine = torch.fft.ifft2(spectrum * self.bands[0]).abs()  # [B, C, L, H', W']
        coarse = _halved(spectrum * self.bands[1]).abs()  # [B, C, L, H'/2, W'/2]
        # a second modulus looks for coarser structure than the first: elsewhere is little energy. One angle at a time
        # bounds the memory
        second = [_halved(torch.fft.fft2(band)[:, :, None] * self.bands[1]).abs() for band in fine.unbind(2)]
        at_full = self.rows @ torch.cat([x[:, :, None], fine], 2) @ self.columns.T
        at_half = self.rows_halved @ torch.cat([coarse, *second], 2) @ self.columns_halved.T
        return torch.cat([at_full, at_half], 2).flatten(1, 2)


def _halved(spectrum: Tensor) -> Tensor:
    """Every second sample each way of the signal of this spectrum [..., H, W]: its quarters overlaid, then inverted."""
    top, bottom = spectrum.chunk(2, -2)
    left, right = (0.25 * (top + bottom)).chunk(2, -1)
    thinned: Tensor = torch.fft.ifft2(left + right)
    return thinned


def _low_pass(side: int, step: int) -> Tensor:
    """The low-pass phi along one side as a matrix, float32 [side // 2^J, padded side / step].

    A Gaussian of sigma = 0.8 * 2^(J - 1) pixels, cut off at 2^J, about every 2^J-th pixel inside the margin, over maps
    that hold every `step`-th pixel. Rows sum to 1.
    """
    centres = _STRIDE * torch.arange(1, side // _STRIDE + 1, dtype=torch.float64)
    padded = side + side % 2 + 2 * _STRIDE
    distance = step * torch.arange(padded // step, dtype=torch.float64)[None, :] - centres[:, None]
    weights = torch.exp(-0.5 * (distance / (0.8 * 2 ** (_SCALES - 1))) ** 2) * (distance.abs() <= _STRIDE)
    matrix: Tensor = (weights / weights.sum(1, keepdim=True)).float()
    return matrix


def morlet_bank(height: int, width: int) -> Tensor:
    """Transfer functions, real, for circular convolution by FFT: float32 [J, L, height, width].

    Morlet wavelets of scale j: Gaussian envelope sigma = 0.8 * 2^j, frequency 3 pi / 4 / 2^j, slant 4 / L, mean 0.
    """
    bands = torch.empty(_SCALES, _ANGLES, height, width, dtype=torch.float64)
    if bands.is_meta:  # only shapes are asked for, and 14,000 operations on them take seconds
        return bands.float()
    for j in range(_SCALES):
        for angle in range(_ANGLES):
            theta, sigma = angle * math.pi / _ANGLES, 0.8 * 2**j
            wave = _gabor(height, width, sigma, theta, 0.75 * math.pi / 2**j)
            envelope = _gabor(height, width, sigma, theta, 0.0)
            bands[j, angle] = wave - wave[0, 0] / envelope[0, 0] * envelope
    return bands.float()


def _gabor(height: int, width: int, sigma: float, theta: float, frequency: float) -> Tensor:
    """Transfer function, float64 [height, width], of a periodised Gabor filter of unit envelope mass.

    A Gaussian envelope has a Gaussian spectrum, whose aliases (three periods each way) are summed in closed form.
    """
    cos, sin = math.cos(theta), math.sin(theta)
    steps = [2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width)]
    response = torch.zeros(height, width, dtype=torch.float64)
    for alias_y in range(-3, 4):
        for alias_x in range(-3, 4):
            v = steps[0][:, None] + 2 * math.pi * alias_y
            u = steps[1][None, :] + 2 * math.pi * alias_x
            along, across = cos * u + sin * v - frequency, cos * v - sin * u
            response += torch.exp(-0.5 * sigma**2 * (along**2 + (across * _ANGLES / 4) ** 2))
    return response
