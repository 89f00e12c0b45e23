"""The smallest difference that a comparison of this size detects."""

from __future__ import annotations

import numpy as np
from scipy import special

from harness.stats.observations import Observations
from harness.stats.paired import is_mcnemar, range_of_difference, require_same_samples, spread
from harness.stats.proportions import smallest_shown


def smallest_difference(a: Observations, b: Observations, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Computes the smallest true difference that a test on these samples detects.

    0/1 scores: the smallest d that McNemar's test at `alpha` detects with probability `power`, when a share max(s, d) of the
    samples differs; s is the share that differed here. Other scores: (t_{1 − alpha/2} + t_power) × the standard error of the
    paired difference; within known bounds, the guard against rare losses adds about 1/n of the range (1.4/n below 200
    samples).

    Args:
        a: The scores of one variant.
        b: The scores of the other, on the same samples.
        power: Probability of detecting the difference.
        alpha: Level of the two-sided test: 0.05 / m for one of m tests.

    Returns:
        The difference in the metric's own scale; None where no difference could be detected or the spread is unknown.

    Example:
        >>> round(smallest_difference(Observations(np.ones(100)), Observations(np.ones(100))), 3)
        0.066
    """
    require_same_samples(a, b)
    if is_mcnemar(a, b):
        return smallest_shown(len(a), float(np.mean(a.values != b.values)), power=power, alpha=alpha)
    found = spread(a, b)
    if found is None or found.error == 0:
        return None
    quantiles = special.stdtrit(found.freedom, 1 - alpha / 2) + special.stdtrit(found.freedom, power)
    reach = None if a.layout.clustered else range_of_difference(a, b)
    guarded = 0.0 if reach is None else (1.0 if len(a) >= 200 else 1.4) / len(a) * reach
    return float(quantiles) * found.error + guarded
