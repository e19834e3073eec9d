# SPDX-License-Identifier: Apache-2.0
"""How a step changes the weights, and how the learning rate runs through the final fit.

Adam: Kingma and Ba 2015 (arXiv 1412.6980); AdamW and the cosine: Loshchilov and Hutter (arXiv 1711.05101, 1608.03983);
the steps to a tenth after half and three quarters: He et al. 2015 (arXiv 1512.03385).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from fedcpsc.models.fused import fused_on_gpu
from fedcpsc.student_config import StudentConfig

__all__ = ["learning_rate", "make_optimiser", "optimiser_in_words"]


def make_optimiser(config: StudentConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The configured optimiser of all weights that learn; on a GPU a step is one kernel over all of them."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    rate, decay, fused = config.learning_rate, config.weight_decay, fused_on_gpu(weights)
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            weights, rate, config.momentum, weight_decay=decay, nesterov=config.nesterov, fused=fused
        )
    if config.optimiser == "adamw":
        return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=fused)
    return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=fused)


def learning_rate(config: StudentConfig, step: int, total: int) -> float:
    """The learning rate of a step of the final fit.

    Over the first `warmup_steps` it rises evenly to `learning_rate`; over the others it follows the schedule.

    Args:
        config: section `student` of the run's configuration.
        step: number of the step, in [0, total).
        total: number of steps in the final fit, >= 1.
    """
    rate, warmup = config.learning_rate, config.warmup_steps
    if step < warmup:
        return rate * (step + 1) / warmup
    done, of = step - warmup, total - warmup
    if config.schedule == "cosine":
        return rate * (0.5 * (1 + math.cos(math.pi * done / of)))
    if config.schedule == "step":
        return rate * (1.0 if 2 * done < of else 0.1 if 4 * done < 3 * of else 0.01)
    return rate


def optimiser_in_words(config: StudentConfig) -> str:
    """Optimiser and schedule in a line, for people."""
    words: list[str] = [config.optimiser]
    if config.optimiser == "sgd" and config.momentum:
        words.append(f"{'Nesterov ' if config.nesterov else ''}momentum {config.momentum:g}")
    words.append(f"learning rate {config.learning_rate:g}")
    if config.weight_decay:
        words.append(f"weight decay {config.weight_decay:g}")
    warmup = f" after {config.warmup_steps:,} steps of warm-up" if config.warmup_steps else ""
    words.append(f"{config.schedule} schedule{warmup}")
    words += [f"{name} {alpha:g}" for name, alpha in (("mixup", config.mixup), ("cutmix", config.cutmix)) if alpha]
    return ", ".join(words)
