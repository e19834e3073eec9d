# SPDX-License-Identifier: Apache-2.0
"""The sum of clipped gradients that DP-SGD adds noise to: one clipped gradient a unit, whatever it has of records.

Formal guarantee: adding or removing a unit (a record, or a person with all its records) changes `clipped_sum` by at
most `max_norm` in L2 norm, for any weights, images and labels. A unit's gradient is the mean over its records'
gradients, clipped. It depends on nobody else's records, because networks with batch norm are refused.

| case | what is done |
|---|---|
| a gradient that is infinite or no number | counts as zero: no noise would cover it |
| float rounding of a norm | covered: clipped to `max_norm` (1 - 1e-4) |
| float rounding of the sum | about 1e-7 of it: measured, covered by no proof |
| clipping each record instead | a person with m records moves the sum by m `max_norm`: not what is done here |
| an empty batch | zeros |

Records are put through the network in chunks of whole units of equal size, about 256 records each; only a unit that is
larger is cut, and its gradient gathered over the pieces, so that memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GradientSource", "HeadGradients", "NetworkGradients", "clipped_sum", "members_of"]

_CHUNK = 256  # records put through the network at once
_MARGIN = 1e-4

Index = npt.NDArray[np.int64]


class GradientSource(Protocol):
    """Gradients of single units.

    Attributes:
        parameters: what is trained, in the order of the gradients.
    """

    parameters: list[nn.Parameter]

    def clipped(self, rows: Tensor, max_norm: float) -> Tensor:
        """Sum over units of each one's mean gradient of the cross-entropy, clipped: [P], all parameters in turn.

        Args:
            rows: places of the records of U units, int64 [U, m]; at most a chunk of records, or one unit.
            max_norm: largest L2 norm of a unit's share, > 0.
        """
        ...


class NetworkGradients:
    """Gradients of a whole network, by Opacus' `GradSampleModule`.

    Args:
        network: network without batch norm; stays usable by itself.
        images: records, uint8 [N, C, H, W].
        labels: classes, int64 [N].
        view: function from uint8 [B, C, H, W] on the device to what the network sees, for instance shifted at random.
        device: device of the network.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, labels: Tensor, view: Callable[[Tensor], Tensor], device: torch.device
    ) -> None:
        from opacus.grad_sample import GradSampleModule  # noqa: PLC0415 - slow to import, used by this kind alone

        self.parameters = list(network.parameters())
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(_in_order)
        self._module = GradSampleModule(network, loss_reduction="sum")
        self._module.train()  # otherwise no gradients of single records are kept
        self._images, self._labels, self._view, self._device = images, labels, view, device

    def clipped(self, rows: Tensor, max_norm: float) -> Tensor:
        """As `GradientSource` says."""
        pieces = [self._summed(piece) for piece in torch.split(rows, _CHUNK, 1)]
        return _clip([sum(parts[1:], parts[0]) / rows.shape[1] for parts in zip(*pieces, strict=True)], max_norm)

    def _summed(self, rows: Tensor) -> list[Tensor]:
        """Each unit's gradients summed over its records: [U, *shape] for each parameter."""
        records = rows.flatten()
        x = self._view(self._images[records].to(self._device))
        logits = self._module(x)
        torch.autograd.backward(F.cross_entropy(logits, self._labels[records].to(self._device), reduction="sum"))
        return [self._taken(parameter, rows.shape) for parameter in self.parameters]

    def _taken(self, parameter: Any, shape: torch.Size) -> Tensor:
        """The parameter's gradients [U, m, *shape] summed over m; leaves none behind."""
        single: Tensor = parameter.grad_sample
        parameter.grad_sample = parameter.grad = None
        return single.view(*shape, *single.shape[1:]).sum(1)


def _in_order(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Opacus 1.6 unfolds a convolution's input by strides that it takes for those of a contiguous tensor.

    With channels last the gradients came from other places of the same image: private all the same, but wrong.
    """
    return tuple(x.contiguous() for x in inputs)


class HeadGradients:
    """Gradients of a linear layer whose inputs are fixed, in closed form: errors (softmax - one hot) x features.

    The squared norm of a unit's gradient is the sum over pairs of its records of (errors . errors) (features . features
    + 1), in double precision, so that no gradient is written out for each unit: some ten times faster.

    Args:
        head: layer of K outputs.
        features: inputs of all records, float32 [N, D]; may lie on another device than the layer.
        labels: classes, int64 [N].
        device: device of the layer.
    """

    def __init__(self, head: nn.Linear, features: Tensor, labels: Tensor, device: torch.device) -> None:
        self.parameters = list(head.parameters())  # weight, and bias where it has one
        self._ones = float(head.bias is not None)  # what the bias adds to each pair's product
        self._head, self._features, self._labels, self._device = head, features, labels, device

    @torch.no_grad()
    def clipped(self, rows: Tensor, max_norm: float) -> Tensor:
        """As `GradientSource` says."""
        if len(rows) == 1:  # perhaps a large unit: its pairs would be many
            errors = [self._errors(piece) for piece in torch.split(rows, _CHUNK, 1)]
            weight = sum((off[0].T @ x[0] for off, x in errors), torch.zeros_like(self._head.weight))
            bias = sum((off[0].sum(0) for off, _ in errors), torch.zeros_like(self._head.weight[:, 0]))
            parts = (weight, bias)[: len(self.parameters)]
            return _clip([part[None] / rows.shape[1] for part in parts], max_norm)
        off, x = self._errors(rows)
        off /= rows.shape[1]
        fine, errors64 = x.double(), off.double()
        pairs = torch.bmm(errors64, errors64.transpose(1, 2)) * (torch.bmm(fine, fine.transpose(1, 2)) + self._ones)
        norms = pairs.sum((1, 2)).clamp(min=0).sqrt()
        off *= _shares(norms, max_norm).to(off)[:, None, None]
        if not (finite := torch.isfinite(norms)).all():
            off, x = (part.masked_fill(~finite[:, None, None], 0.0) for part in (off, x))
        off = off.flatten(0, 1)
        return torch.cat([(off.T @ x.flatten(0, 1)).flatten(), off.sum(0)][: len(self.parameters)])

    def _errors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(softmax - one hot [U, m, K], features [U, m, D])."""
        x = self._features[rows].to(self._device)
        off = torch.softmax(self._head(x), 2)
        return off - F.one_hot(self._labels[rows].to(self._device), off.shape[2]), x


def _clip(means: list[Tensor], max_norm: float) -> Tensor:
    """Sum of clipped vectors, each the parts [U, *shape] of all parameters: [P]."""
    flat = [mean.flatten(1) for mean in means]
    norms = torch.stack([torch.linalg.vector_norm(mean, dim=1) for mean in flat]).norm(dim=0)
    shares, infinite = _shares(norms, max_norm), ~torch.isfinite(norms)[:, None]
    return torch.cat([shares @ mean.masked_fill(infinite, 0.0) for mean in flat])


def _shares(norms: Tensor, max_norm: float) -> Tensor:
    """What each vector is multiplied by: clipped by its norm [U], left out where that is no number."""
    return torch.where(torch.isfinite(norms), (max_norm / norms).clamp(max=1.0) * (1 - _MARGIN), 0.0)


def members_of(numbers: Index) -> list[Index]:
    """Places of each unit's records: U arrays int64, from the number of each record's unit [N] (`unit_numbers`)."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(numbers) else []


def clipped_sum(source: GradientSource, units: Sequence[Index], max_norm: float) -> Tensor:
    """Sum over units of each one's mean gradient, clipped: float64 [P] on the CPU, all parameters one after another.

    Args:
        source: gradients at the present weights.
        units: places of each unit's records, at least one each.
        max_norm: largest L2 norm of a unit's share, > 0.
    """
    total = torch.zeros(sum(parameter.numel() for parameter in source.parameters), dtype=torch.float64)
    for rows in _chunks(units):
        total += source.clipped(rows, max_norm).double().cpu()
    return total


def _chunks(units: Sequence[Index]) -> Iterator[Tensor]:
    """Places of the records of some units of one size at a time, int64 [U, m]: at most 256 records, or one unit."""
    sizes = np.array([len(unit) for unit in units], np.int64)
    for size in np.unique(sizes).tolist():
        alike = torch.from_numpy(np.stack([units[number] for number in np.flatnonzero(sizes == size).tolist()]))
        yield from torch.split(alike, max(1, _CHUNK // size))
