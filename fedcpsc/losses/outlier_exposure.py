# SPDX-License-Identifier: Apache-2.0
"""Teaching a classifier to say "none of these classes" of pictures that show none of them.

Source: outlier exposure, Hendrycks et al. 2019 (arXiv 1812.04606), with an output of its own for outliers in place of a
uniform target. Deviation: the target of that output is q < 1, and how the rest is shared among the classes is left to
the classifier. An answer about such a picture, as a federation asks for them, then still says which of the classes it
resembles: with q = 1 the output goes to 0.999, and in 8 bits nothing is left of the classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["outlier_exposure"]


def outlier_exposure(logits: Tensor, none: float) -> Tensor:
    """Mean over the batch of `-q log p_none - (1 - q) log(1 - p_none)`, p = softmax(logits), q = `none`.

    Args:
        logits: logits of outliers, [B, K + 1], the last for "none of the K classes".
        none: wanted probability q of none, in [0, 1].

    Returns:
        Scalar. Its minimum is the entropy of (q, 1 - q), reached at p_none = q however the classes share the rest.
    """
    logs = F.log_softmax(logits, dim=1)
    some = logs[:, :-1].logsumexp(1)
    return -(none * logs[:, -1] + (1 - none) * some).mean()
