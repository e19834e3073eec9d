# SPDX-License-Identifier: Apache-2.0
"""A lower bound on mu from what a mechanism releases: the audit of the mechanism, not of a model.

Two neighbouring worlds, many independent releases in each through the real code, projected on the direction in which
the worlds differ, and a test between them whose threshold is fixed beforehand.
"""

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.bounds import two_world_mu

CONFIDENCE = 1 - 2e-6


def mu_lower_bound(without: npt.NDArray[np.float64], with_: npt.NDArray[np.float64], threshold: float) -> float:
    """mu that two samples of projected releases prove. `threshold` is fixed beforehand."""
    false, missed = int((without > threshold).sum()), int((with_ <= threshold).sum())
    return two_world_mu(false, len(without), missed, len(with_), CONFIDENCE)
