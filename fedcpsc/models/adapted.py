# SPDX-License-Identifier: Apache-2.0
"""Networks of others as classifiers: their input prepared inside, their features read on the way to the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedcpsc.models.classifier import Classifier

__all__ = ["Adapted", "head_of", "stored_tensors"]


class Adapted(Classifier):
    """A network of any origin, [B, C', H, W] -> logits [B, K], behind the preparation of its input.

    Pixels in [-1, 1] are brought to [0, 1] and normalised, (pixel - mean) / std, where constants are given; else they
    go in as they are. The constants are no part of the state dict: they follow from the configuration.

    Args:
        network: network; one of this project gives its own features, of another `head` says where they are.
        classes: K.
        image_shape: (C, H, W) of the images.
        repeat: number of copies of a grey image's channel that the network takes, >= 1.
        normalisation: mean and standard deviation, one for all channels of the network or one for each; None takes
            pixels as they are.
        head: name of the linear layer whose input are the features; None where it has none: then the logits stand in
            for them.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        image_shape: tuple[int, int, int],
        *,
        repeat: int = 1,
        normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
        head: str | None = None,
    ) -> None:
        super().__init__(classes, image_shape)
        # others may take a tensor apart by `view`, which needs channels first; on a CPU also see `Pointwise`
        self.memory_format = network.memory_format if isinstance(network, Classifier) else torch.preserve_format
        self.network = network
        self.repeat = repeat
        self.head_name = head
        self.normalised = normalisation is not None
        if normalisation is not None:
            mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in normalisation)
            self.register_buffer("scale", 0.5 / std, persistent=False)
            self.register_buffer("offset", (0.5 - mean) / std, persistent=False)

    @property
    def stored(self) -> nn.Module:
        """The network itself: its file opens where it comes from."""
        return self.network.stored if isinstance(self.network, Classifier) else self.network

    @property
    def has_features(self) -> bool:
        """Whether the features are the network's, and not its logits once more."""
        return self.head_name is not None or isinstance(self.network, Classifier)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        logits: Tensor = self.network(self._prepared(x))
        return logits

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> (logits [B, K], features [B, D]) in one pass."""
        x = self._prepared(x)
        if isinstance(self.network, Classifier):
            return self.network.forward_with_features(x)
        if self.head_name is None:
            logits: Tensor = self.network(x)
            return logits, logits
        features: list[Tensor] = []
        head = self.network.get_submodule(self.head_name)
        watch = head.register_forward_pre_hook(lambda _, given: features.append(given[0]))
        try:
            logits = self.network(x)
        finally:
            watch.remove()
        return logits, features[-1]

    def _prepared(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1 and x.stride(1) == 1 and self.memory_format is torch.preserve_format:
            # of one channel both orders in memory are the same, and torch's convolutions would go on in the other
            x = x.flatten().view(x.shape)
        if self.repeat > 1:
            x = x.repeat(1, self.repeat, 1, 1)
        return torch.addcmul(self.offset, x, self.scale) if self.normalised else x


def head_of(network: nn.Module, x: Tensor) -> str | None:
    """The name of the last linear layer whose output has the logits' shape and whose input is one vector an image.

    Args:
        network: network in any mode, which is kept; passes in training mode would move its running statistics.
        x: images that it takes.

    Returns:
        None where it has no such layer, as where a convolution gives the logits.
    """
    calls: list[tuple[str, Tensor, Tensor]] = []

    def watch(name: str, layer: nn.Linear) -> torch.utils.hooks.RemovableHandle:
        return layer.register_forward_hook(lambda _, given, out: calls.append((name, given[0], out)))

    modes = [(module, module.training) for module in network.modules()]
    watches = [watch(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    try:
        with torch.no_grad():
            logits = network.eval()(x)
    finally:
        for each in watches:
            each.remove()
        for module, training in modes:
            module.training = training
    return next((name for name, given, out in reversed(calls) if given.dim() == 2 and out.shape == logits.shape), None)


def stored_tensors(network: Classifier) -> dict[str, Tensor]:
    """What a file of its weights holds: tensors on the CPU, contiguous, those that share their values once each."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in network.stored.state_dict().items():
        own = tensor.detach().cpu().contiguous()
        tensors[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return tensors
