# SPDX-License-Identifier: Apache-2.0
"""K small networks of one architecture, their weights stacked in one safetensors file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from fedcpsc.errors import ManifestError, explain
from fedcpsc.models.registry import HeadedClassifier, build_classifier
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest
from fedcpsc.teachers.protocol import Floats, checked
from fedcpsc.teachers.state_dict import check_numbers
from fedcpsc.teachers.torch_teacher import Pixels

__all__ = ["SHARDS", "TorchShardTeacher", "stacked"]


class TorchShardTeacher:
    """Implements `ShardTeacher`.

    Args:
        skeleton: network of the shards' architecture; its weights are replaced.
        states: stacked state dict, each tensor [T, ...].
        manifest: manifest of the teacher.
        batch_size: number of images per forward pass.
    """

    def __init__(
        self, skeleton: HeadedClassifier, states: dict[str, Tensor], manifest: Manifest, batch_size: int = 500
    ) -> None:
        self.classes = manifest.outputs
        self.image_shape = manifest.image_shape
        self.shards = len(next(iter(states.values())))
        self._skeleton = skeleton.eval().requires_grad_(False)
        self._states = states
        self._batch_size = batch_size
        self._pixels = Pixels(manifest)

    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """The shards' mean, float32 [N, K].

        Raises:
            TeacherError: where a shard gives NaN or inf.
        """
        mean: Floats = self.predict_shards(images).mean(0, dtype=np.float32)
        return checked(mean, len(images), self.classes)

    @torch.inference_mode()
    def predict_shards(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Each shard's probabilities, float32 [T, N, K]."""
        found = np.empty((self.shards, len(images), self.classes), np.float32)
        for start in range(0, len(images), self._batch_size):
            stop = start + self._batch_size
            pixels = self._pixels(images[start:stop])
            if self._skeleton.only_head_learns:
                found[:, start:stop] = torch.softmax(self._heads(self._skeleton.features(pixels)), 2).numpy()
                continue
            for shard in range(self.shards):
                state = {name: tensor[shard] for name, tensor in self._states.items()}
                logits = torch.func.functional_call(self._skeleton, state, (pixels,))
                found[shard, start:stop] = torch.softmax(logits, 1).numpy()
        return found

    def _heads(self, features: Tensor) -> Tensor:
        """Each shard's logits [T, N, K] of features [N, D] that all share."""
        weights, biases = self._states["head.weight"], self._states["head.bias"]
        return torch.einsum("nd,tkd->tnk", features, weights) + biases[:, None]


def stacked(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The networks' state dicts as one, each tensor [T, ...]."""
    states = [network.state_dict() for network in networks]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def load(weights: bytes, manifest: Manifest, batch_size: int) -> TorchShardTeacher:
    """The shards of stacked weights in safetensors form.

    Raises:
        ManifestError: where weights and manifest disagree.
    """
    skeleton = build_classifier(manifest.architecture, manifest.outputs, manifest.image_shape, manifest.width)
    try:
        states = load_tensors(weights)
    except SafetensorError as error:
        raise ManifestError(
            explain("weights", WEIGHTS_FILE, f"are damaged ({error})", "make the teacher again")
        ) from error
    shards = (manifest.privacy or {}).get("shards")
    wanted = {name: (shards, *tensor.shape) for name, tensor in skeleton.state_dict().items()}
    if wanted != {name: tuple(tensor.shape) for name, tensor in states.items()}:
        raise ManifestError(
            explain("weights", WEIGHTS_FILE, f"are not {shards} x {manifest.architecture}", "make the teacher again")
        )
    check_numbers(states, skeleton.state_dict(), WEIGHTS_FILE)
    return TorchShardTeacher(skeleton, states, manifest, batch_size)


SHARDS = TeacherFormat(
    name="shards",
    summary="several small networks, each trained on records of its own",
    when="where the mechanism is `shard_votes`, `gnmax` or `confident_gnmax`",
    needs="a training by `teachers.training.kind: shards`",
    weights_file="state dicts of K networks of one architecture, stacked, as safetensors",
    load=load,
    code="none: tensors",
    checks="names and shapes of all tensors",
)
