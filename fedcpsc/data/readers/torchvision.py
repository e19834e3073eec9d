# SPDX-License-Identifier: Apache-2.0
"""Data sets that torchvision reads, from where it has put them earlier; never downloaded here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcpsc.data.readers.source import DataSource, Split, SplitName
from fedcpsc.errors import DataError, explain
from fedcpsc.silo_config import DataConfig

__all__ = ["CIFAR10", "CIFAR100", "FASHION_MNIST", "MNIST"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Torchvision(DataSource):
    """One of torchvision's data sets.

    Attributes:
        class_name: name of its class in `torchvision.datasets`.
    """

    class_name: str
    needs: str = "a folder (`data.path`) into which torchvision has downloaded it"
    parameters: tuple[str, ...] = ("data.path",)

    def has_split(self, folder: Path, split: SplitName) -> bool:
        del folder, split
        return True  # torchvision's data sets always have both

    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        del config
        from torchvision import datasets  # noqa: PLC0415

        try:
            dataset = getattr(datasets, self.class_name)(str(folder), train=split == "train", download=False)
        except (RuntimeError, OSError, ValueError) as error:
            constraint = f"has no {self.class_name} in torchvision's form ({error})"
            raise DataError(explain("data.path", str(folder), constraint, "download it there")) from error
        pictures = list(np.asarray(dataset.data))  # uint8 [N, H, W] or [N, H, W, 3]
        labels = np.asarray(dataset.targets, np.int64)
        return Split(pictures, labels, tuple(dataset.classes), f"{self.name} in {folder}")


MNIST = _Torchvision(
    name="mnist",
    class_name="MNIST",
    summary="70,000 handwritten digits of 28x28 grey pixels",
    when="to compare with figures on MNIST",
)
FASHION_MNIST = _Torchvision(
    name="fashion_mnist",
    class_name="FashionMNIST",
    summary="70,000 pictures of clothes in ten classes, 28x28 grey pixels",
    when="to compare with figures on Fashion-MNIST",
)
CIFAR10 = _Torchvision(
    name="cifar10",
    class_name="CIFAR10",
    summary="60,000 photographs in ten classes, 32x32 colour pixels",
    when="to compare with figures on CIFAR-10",
)
CIFAR100 = _Torchvision(
    name="cifar100",
    class_name="CIFAR100",
    summary="60,000 photographs in a hundred classes, 32x32 colour pixels",
    when="to compare with figures on CIFAR-100",
)
