# SPDX-License-Identifier: Apache-2.0
"""A network that a section of a configuration names, by whatever library: built, given weights, made a classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.adapted import Adapted, head_of
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.frozen_body import FrozenBody
from fedcpsc.models.libraries import Library, Plan, named_network, skeleton
from fedcpsc.models.likeness import head_keys
from fedcpsc.models.pretrained import Match, Pretrained, match
from fedcpsc.models.seeded import seeded
from fedcpsc.pretrained_normalisation import PretrainedNormalisation

__all__ = ["NamedNetwork", "adapted"]

_COLOURS = 3


@dataclass(frozen=True)
class NamedNetwork:
    """What a network is built from.

    Attributes:
        key: dotted key of the configuration that names it, for messages, such as "student.architecture".
        architecture: name without a prefix for a network of this project, else `torchvision/NAME` or `timm/NAME`.
        classes: number of its outputs.
        image_shape: shape (C, H, W) of the images.
        width: width of a network of this project.
        normalisation: constants that its pretrained weights expect; None for pixels in [-1, 1].
        grey_as_colour: whether a network of a library takes a grey image's channel three times, as it takes the weights
            that others trained on colours; otherwise it has another first layer for it.
    """

    key: str
    architecture: str
    classes: int
    image_shape: tuple[int, int, int]
    width: int
    normalisation: PretrainedNormalisation | None = None
    grey_as_colour: bool = False

    @property
    def library(self) -> Library:
        """Library that the network comes from.

        Raises:
            ConfigError: there is no such network, naming the nearest; or timm is named and not installed.
        """
        return named_network(self.architecture, self.key)[0]

    @property
    def name(self) -> str:
        """Name of the network in its library."""
        return named_network(self.architecture, self.key)[1]

    @property
    def plan(self) -> Plan:
        """What the library builds it from, beside its name."""
        channels, height, width = self.image_shape
        return Plan(self.classes, channels * self._repeat, (height, width), self.width)

    @property
    def _repeat(self) -> int:
        return _COLOURS if self.grey_as_colour and "/" in self.architecture and self.image_shape[0] == 1 else 1

    def built(self, seed: int | None) -> nn.Module:
        """The network as its library has it, freshly initialised, on the CPU and in training mode.

        Args:
            seed: seed of the initialisation; None builds the network for the shapes of its tensors: on the device
                `meta`, where that is possible.

        Raises:
            ConfigError: there is no such network for such images.
        """
        if seed is None:
            return skeleton(self.library, self.name, self.plan).train()
        with seeded(seed):
            return self.library.build(self.name, self.plan).train()

    def match(self, weights: Pretrained, network: nn.Module) -> Match:
        """What of the network's weights is in a file.

        Raises:
            ConfigError: the weights are of another network.
        """
        return match(weights, network, self.library, self.name, self.plan, self.key.partition(".")[0])

    def classifier(self, network: nn.Module) -> Classifier:
        """A network that `built` gave, with its input prepared inside where that is needed."""
        if isinstance(network, Classifier) and self.normalisation is None:
            return network
        return adapted(network, self.normalisation, self.classes, self.image_shape, self._repeat)

    def frozen(self, network: Classifier, matched: Match | None = None) -> FrozenBody:
        """A network that `classifier` gave, of which only the head is trained.

        A head that no weights were taken for begins at zero, as a logistic regression does: libraries draw heads for
        small features, and with large ones would begin sure of wrong classes.

        Args:
            network: network, changed in place.
            matched: what of its weights was taken from a file; None leaves the head as it is.

        Raises:
            ConfigError: its logits are not those of one linear layer.
        """
        remedy, name = "use another network, such as resnet18", _head_of(network)
        head = None if name is None else network.stored.get_submodule(name)
        if not isinstance(head, nn.Linear):
            constraint = "does not end in a linear layer, and only such a head can be trained on frozen features"
            raise ConfigError(explain(self.key, self.architecture, constraint, remedy))
        own = {f"{name}.weight", f"{name}.bias"}
        if others := head_keys(self.library, self.name, self.plan) - own:
            constraint = f"has more than one head ({', '.join(sorted(others))} beside {name}), and one is trained"
            raise ConfigError(explain(self.key, self.architecture, constraint, remedy))
        made = FrozenBody(network, head)
        for key in own.intersection(matched.left) if matched is not None else ():
            nn.init.zeros_(head.get_parameter(key.rpartition(".")[2]))
        if head.weight.device.type != "meta" and not _says_the_same(made):
            constraint = f"changes what {name} gives, and only a head that gives the logits can be trained"
            raise ConfigError(explain(self.key, self.architecture, constraint, remedy))
        return made


def _head_of(network: Classifier) -> str | None:
    """Name of the network's last linear layer in its state dict; None where it has none."""
    if isinstance(network, Adapted) and not isinstance(network.network, Classifier):
        return network.head_name
    return "head"


def _says_the_same(made: FrozenBody) -> bool:
    """Whether head and features together give what the whole network gives."""
    with torch.no_grad(), seeded(0):
        x = torch.rand(2, *made.image_shape, device=made.head.weight.device) * 2 - 1
        kept = [parameter.clone() for parameter in made.head.parameters()]
        for parameter in made.head.parameters():
            nn.init.normal_(parameter)  # one at zero would hide a difference
        same = torch.allclose(made(x), made.network(x), rtol=1e-3, atol=1e-3)
        for parameter, value in zip(made.head.parameters(), kept, strict=True):
            parameter.copy_(value)
    return same


def adapted(
    network: nn.Module,
    constants: PretrainedNormalisation | None,
    classes: int,
    image_shape: tuple[int, int, int],
    repeat: int = 1,
) -> Adapted:
    """A network of any origin as a classifier.

    Args:
        network: network, perhaps on the device `meta`.
        constants: constants that its pixels are normalised by; None for pixels in [-1, 1].
        classes: number of its outputs.
        image_shape: shape (C, H, W) of the images.
        repeat: number of copies of a grey image's channel that the network takes.
    """
    normalisation = None if constants is None else (constants.mean, constants.std)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    head = None
    if not isinstance(network, Classifier):
        channels, height, width = image_shape
        with seeded(0):
            head = head_of(network, torch.zeros(2, channels * repeat, height, width, device=device))
    made = Adapted(network, classes, image_shape, repeat=repeat, normalisation=normalisation, head=head)
    return made.to(device)
