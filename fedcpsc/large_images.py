# SPDX-License-Identifier: Apache-2.0
"""How many images are worked on together, so that memory does not grow with their size.

Images of up to 64x64 pixels are worked on in the usual numbers, whatever those are. Of larger ones fewer are taken at
once. The numbers follow from the images' shape alone, never from a measurement: two machines pass the same batches.
"""

from __future__ import annotations

__all__ = ["are_large", "images_a_pass", "together"]

_SMALL = 64 * 64
_PIXELS = 2**19
# On a CPU the feature maps of many more images fall out of its cache, and every layer then waits for memory; from 16 to
# 256 images of 28x28 pixels a pass makes no difference. A GPU wants more at once.
_CPU_PASS, _GPU_PASS = 64, 512


def are_large(image_shape: tuple[int, int, int]) -> bool:
    """Whether images (C, H, W) have more than 64x64 pixels."""
    return image_shape[1] * image_shape[2] > _SMALL


def together(usual: int, image_shape: tuple[int, int, int], pixels: int = _PIXELS) -> int:
    """Number of images that are worked on together: `usual`, of large ones fewer, at least one.

    Args:
        usual: number of small images, >= 1.
        image_shape: (C, H, W).
        pixels: most pixels of large images, channels not counted: by default 10 images of 224x224.
    """
    if not are_large(image_shape):
        return usual
    return max(1, min(usual, pixels // (image_shape[1] * image_shape[2])))


def images_a_pass(image_shape: tuple[int, int, int], *, on_gpu: bool = False) -> int:
    """Number of images that pass through a network together where nothing is trained.

    Args:
        image_shape: (C, H, W).
        on_gpu: whether the network lies on a GPU; its memory, not a cache, then bounds the number.
    """
    return _GPU_PASS if on_gpu else together(_CPU_PASS, image_shape)
