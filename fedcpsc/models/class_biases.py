# SPDX-License-Identifier: Apache-2.0
"""Class biases under which a classifier predicts each class as often as it occurs, from unlabelled images.

A student that was fitted to invented images predicts some classes too often on real ones. Where it is known how often
each class occurs among some images, without knowing which are which, K numbers correct that: `lse(z + b)` is convex in
b, and where its mean over the images, less `s . b`, is smallest, the mean predicted probability of each class is its
share s. A standard normal prior on each bias keeps few images from moving much. The same shift by counts of labelled
images is logit adjustment (Menon et al. 2021, arXiv 2007.07314); that a mean prediction other than the classes' shares
shows a shift, Lipton et al. 2018 (arXiv 1802.03916).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from torch import Tensor, nn

from fedcpsc.models.adapted import Adapted
from fedcpsc.models.classifier import Classifier, HeadedClassifier

__all__ = ["class_biases_for", "head_biases"]

Floats = npt.NDArray[np.float64]

_STEPS = 500
_TOLERANCE = 1e-8  # of the gradient, which is a difference of shares


def class_biases_for(logits: npt.NDArray[np.floating], shares: npt.NDArray[np.floating]) -> Floats:
    """What is to be added to the logits of each class, float64 [K], of mean 0.

    Args:
        logits: logits of N >= 1 images, [N, K].
        shares: share of each class among such images, > 0, of sum 1, [K].
    """
    given, wanted, weight = np.asarray(logits, np.float64), np.asarray(shares, np.float64), 1 / len(logits)

    def loss(biases: Floats) -> tuple[float, Floats]:
        shifted = given + biases
        value = logsumexp(shifted, axis=1).mean() - wanted @ biases + weight / 2 * biases @ biases
        return float(value), softmax(shifted, axis=1).mean(0) - wanted + weight * biases

    options = {"maxiter": _STEPS, "gtol": _TOLERANCE, "ftol": 0.0}
    found: Floats = minimize(loss, np.zeros(len(wanted)), jac=True, method="L-BFGS-B", options=options).x
    return np.asarray(found - found.mean(), np.float64)


def head_biases(network: Classifier) -> Tensor | None:
    """The biases that a network adds to its logits, [K], to be changed in place; None where it adds none.

    Args:
        network: network in evaluation mode.
    """
    head = _head_of(network)
    biases = head.bias if isinstance(head, nn.Linear) else None
    if biases is None or biases.shape != (network.classes,):
        return None
    return biases.detach() if _are_added(network, biases.detach()) else None


def _head_of(network: nn.Module) -> nn.Module | None:
    """The layer that gives the logits; None where none is known."""
    if isinstance(network, HeadedClassifier):
        return network.head
    if not isinstance(network, Adapted):
        return None
    if isinstance(network.network, Classifier) or network.head_name is None:
        return _head_of(network.network)
    return network.network.get_submodule(network.head_name)


def _are_added(network: Classifier, biases: Tensor) -> bool:
    """Whether what is added to the biases is added to the logits, and nothing else comes of it."""
    x = torch.linspace(-1, 1, 2 * network.image_shape[0] * network.image_shape[1] * network.image_shape[2])
    x, added = x.view(2, *network.image_shape), torch.linspace(-1, 1, len(biases))
    before = biases.clone()
    with torch.inference_mode():
        logits = network(x)
        biases.add_(added)
        shifted = network(x)
        biases.copy_(before)
    return torch.allclose(shifted, logits + added, rtol=1e-4, atol=1e-4)
