# SPDX-License-Identifier: Apache-2.0
"""A teacher's network on the owner's GPU (`service.device` in the policy); images and answers stay in this process."""

from __future__ import annotations

from torch import Tensor, nn

from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.device import choose_device, to_device
from fedcpsc.transfers import uploaded

__all__ = ["OnDevice"]


class OnDevice:
    """The network, called with tensors of the CPU and answering with such; one wait for the device a call.

    Args:
        network: network, moved to the device and put into evaluation mode.
        device: name of the device, `cpu` or `cuda`.
        key: key of the configuration that named the device, for messages.

    Raises:
        ConfigError: the device is a GPU, and torch sees none.
    """

    def __init__(self, network: nn.Module, device: str, key: str) -> None:
        self._device = choose_device(device, key)
        self._network = to_device(network, self._device).eval().requires_grad_(False)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised images [N, C, H, W] -> outputs as the network gives them, in float32 throughout."""
        with gpu_arithmetic(self._device):
            found: Tensor = self._network(uploaded(pixels, self._device))
        return found.cpu() if isinstance(found, Tensor) else found  # what is no tensor, `TorchTeacher` explains
