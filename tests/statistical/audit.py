"""A lower bound on mu from what a mechanism releases: the audit of the mechanism, not of a model.

Two neighbouring worlds, many independent releases in each through the real code, projected on the direction in which
the worlds differ. For any threshold on that projection, Clopper-Pearson upper bounds a, b on both error rates give
mu >= Phi^-1(1 - a) - Phi^-1(b) with the stated confidence (Nasr et al. 2023, arXiv 2302.07956, for Gaussian DP).
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

FALSE_ALARM = 1e-6


def mu_lower_bound(without: npt.NDArray[np.float64], with_: npt.NDArray[np.float64], threshold: float) -> float:
    """mu that two samples of projected releases prove, at confidence 1 - 2e-6. `threshold` is fixed beforehand."""
    alpha = upper(int((without > threshold).sum()), len(without))
    missed = upper(int((with_ <= threshold).sum()), len(with_))
    return float(norm.ppf(1 - alpha) - norm.ppf(missed))


def upper(hits: int, trials: int) -> float:
    """Clopper-Pearson upper bound on a rate."""
    return 1.0 if hits == trials else float(beta.ppf(1 - FALSE_ALARM, hits + 1, trials - hits))
