# SPDX-License-Identifier: Apache-2.0
"""Finished models as their owners have them, in every format, of one network whose answers are known."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, Normalisation, save_manifest, sha256_hex
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.recognise import Recognised

SHAPE = (3, 16, 16)
CONSTANTS = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = Normalisation(mean=(0.5,), std=(0.5,))


class Small(nn.Module):
    """Three classes of colour images."""

    def __init__(self, end: nn.Module | None = None, channels: int = 3, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(channels, 8, 3, 2, 1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(32, classes),
            )
        self.end = end or nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.end(self.body(images) * 4)
        return found


def images(shape: tuple[int, int, int] = SHAPE, count: int = 5) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(3).integers(0, 256, (count, *shape), dtype=np.uint8)


def own_softmax(network: nn.Module, given: np.ndarray[Any, Any], constants: Normalisation = CONSTANTS) -> Any:
    """What the model's owner gets: softmax of the logits of normalised images, float32 [N, K]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (constants.mean, constants.std))
    with torch.no_grad():
        return network((torch.from_numpy(given).float() / 255 - mean) / std).softmax(1).numpy()


def as_onnx(network: nn.Module, path: Path, shape: tuple[int, int, int] = SHAPE, **options: Any) -> Path:
    """Written by torch's exporter with its defaults: a fixed batch of 1, weights in a second file."""
    pytest.importorskip("onnxscript")
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (torch.zeros(1, *shape),), path, verbose=False, **options)
    return path


def as_program(network: nn.Module, path: Path, shape: tuple[int, int, int] = SHAPE, free: bool = True) -> Path:
    """Written by torch.export."""
    sizes = ({0: torch.export.Dim("n")},) if free else None
    given = torch.zeros(2 if free else 1, *shape)
    torch.export.save(torch.export.export(network, (given,), dynamic_shapes=sizes), path)
    return path


def as_script(network: nn.Module, path: Path, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Written by torch.jit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), torch.zeros(1, *shape)).save(str(path))
    return path


def silo_of(found: Recognised, folder: Path, **facts: Any) -> Manifest:
    """Writes a recognised model into a silo's folder; `facts` replace those of the manifest."""
    folder.mkdir(exist_ok=True)
    known = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if field.name
        in {"kind", "architecture", "width", "entry_point", "image_shape", "normalisation", "probabilities"}
    }
    manifest = Manifest.model_validate(
        {
            "silo": "clinic-north",
            "population": "people of the north",
            "classes": found.outputs,
            "train_size": found.outputs,
            "training": {},
            "weights_sha256": sha256_hex(found.weights),
            "fingerprint": sha256_hex(found.weights),
            "private_class_counts": (1,) * (found.outputs or 0),
        }
        | known
        | facts
    )
    (folder / WEIGHTS_FILE).write_bytes(found.weights)
    save_manifest(manifest, folder)
    return manifest


def answers_of(found: Recognised, folder: Path, given: np.ndarray[Any, Any], **facts: Any) -> Any:
    """What a silo with a recognised model answers, in batches of two."""
    return open_teacher(folder, silo_of(found, folder, **facts), 2).predict(given)
