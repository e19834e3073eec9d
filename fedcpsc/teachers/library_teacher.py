# SPDX-License-Identifier: Apache-2.0
"""Teachers that are networks of torchvision or timm, with weights in safetensors.

The manifest names the network; the library's code builds it, without any weights of the library's own.
"""

from __future__ import annotations

from fedcpsc.errors import ConfigError, ManifestError, explain
from fedcpsc.models.libraries import LIBRARIES, TIMM, Library, Plan, skeleton
from fedcpsc.models.likeness import loaded
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest
from fedcpsc.teachers.network_options import options_of
from fedcpsc.teachers.state_dict import check_numbers, misfit, tensors_of
from fedcpsc.teachers.torch_teacher import TorchTeacher

__all__ = ["load_of"]


def load_of(library: str, weights: bytes, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher of weights in safetensors form.

    Args:
        library: name of the library, one of `architectures.LIBRARIES`.
        weights: content of the weights file.
        manifest: manifest of the teacher.
        batch_size: number of images per forward pass.

    Raises:
        ManifestError: where the library is not installed or has no such network, or the weights do not fit it.
    """
    source: Library = LIBRARIES[library]
    try:
        names = source.names()
    except ConfigError as error:  # timm is not installed
        raise ManifestError(str(error)) from error
    if manifest.architecture not in names:
        remedy = f"upgrade {library}, or adopt the model again"
        raise ManifestError(
            explain("architecture", manifest.architecture, f"is unknown to the installed {library}", remedy)
        )
    channels, *sides = manifest.image_shape
    options = options_of(weights, WEIGHTS_FILE) if source is TIMM else {}
    plan = Plan(outputs=manifest.outputs, channels=channels, sides=(sides[0], sides[1]), options=options)
    try:
        network, state = skeleton(source, manifest.architecture, plan), tensors_of(weights, WEIGHTS_FILE)
    except ConfigError as error:  # timm knows no such option
        raise ManifestError(str(error)) from error
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if any(shapes.get(name) != tensor.shape for name, tensor in state.items()):
        raise misfit(state, network.state_dict(), f"{library}/{manifest.architecture}", WEIGHTS_FILE)
    check_numbers(state, network.state_dict(), WEIGHTS_FILE)
    try:
        return TorchTeacher(loaded(network, state), manifest, batch_size)
    except RuntimeError as error:  # tensors are missing
        raise misfit(state, network.state_dict(), f"{library}/{manifest.architecture}", WEIGHTS_FILE) from error
