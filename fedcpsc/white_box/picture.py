# SPDX-License-Identifier: Apache-2.0
"""What the generator makes at the end, by class."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from fedcpsc.data.images import to_uint8
from fedcpsc.seeding import derive_seed
from fedcpsc.white_box.engine import Engine

__all__ = ["save_samples"]

_PER_CLASS = 10
_CLASSES = 10


def save_samples(path: Path, engine: Engine) -> None:
    """Rows of images made for the first ten classes, each row with the share that the teacher calls so.

    Args:
        path: path of the PNG.
        engine: its generator's running statistics are left as they are.
    """
    classes = min(_CLASSES, engine.teacher.classes)
    y = torch.arange(classes, device=engine.device).repeat_interleave(_PER_CLASS)
    stream = torch.Generator(engine.device).manual_seed(derive_seed(engine.config.seed, "samples"))
    z = torch.randn(len(y), engine.config.generator.nz, generator=stream, device=engine.device)
    engine.generator.eval()
    with torch.inference_mode():
        x = engine.generator(z, y)
        agreed = (engine.teacher(x).argmax(1) == y).float().view(classes, _PER_CLASS).mean(1).tolist()
        images = to_uint8(x.float()).cpu().permute(0, 2, 3, 1).numpy()
    engine.generator.train()
    figure = Figure(figsize=(0.62 * _PER_CLASS + 1.3, 0.62 * classes + 0.7), layout="constrained")
    axes = figure.subplots(classes, _PER_CLASS, squeeze=False)
    for axis, image in zip(axes.flat, images, strict=True):
        axis.set_axis_off()
        grey = image.shape[2] == 1
        axis.imshow(image[:, :, 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
    for k, share in enumerate(agreed):
        label = f"{k}  ({share:.0%})"
        axes[k, 0].text(-0.15, 0.5, label, transform=axes[k, 0].transAxes, ha="right", va="center", fontsize=8)
    figure.suptitle("The generator's images by class (share that the teacher calls so)", fontsize=10)
    figure.savefig(path, dpi=130)
