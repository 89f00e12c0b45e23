"""The delete-a-group jackknife: errors of metrics of the whole set, from numbers that leave out some samples each.

Kott, "The Delete-a-Group Jackknife" (Journal of Official Statistics 2001). With as many groups as units, it is the ordinary
jackknife.

    >>> import numpy as np
    >>> scores = np.array([1.0, 2.0, 6.0])
    >>> round(jackknife_error((scores.sum() - scores) / 2), 4)  # the standard error of a mean
    1.5275
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from harness.stats.bounded import score_ends
from harness.stats.proportions import Z
from harness.stats.spread import t_limits
from harness.stats.units import Array

GROUPS_OF_SUMS = 1000
"""Largest number of jackknife groups of a metric that is computed from sums: each group costs one call of its function."""
GROUPS_OF_WHOLE = 40
"""The same for a metric of the list of all samples, which is expensive. The t interval is 3 % wider than the normal one."""


def jackknife_error(left: Array) -> float:
    """Computes the standard error from `[g]` numbers, each without one of g groups; NaN for a single group."""
    if len(left) < 2:
        return math.nan
    return math.sqrt((len(left) - 1) / len(left) * float(np.sum((left - left.mean()) ** 2)))


def jackknife_limits(
    value: float, left: Array, units: int, bounds: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Computes the 95 % interval of a metric of the whole set: t, on the logit scale if the metric has bounds.

    Args:
        value: The metric over all samples.
        left: `[g]` numbers, each without one group.
        units: Number of independent units.
        bounds: Ends of the metric's scale. A metric at an end has Wilson's interval of as many 0/1 scores.

    Returns:
        None if the error is not known.
    """
    error, freedom = jackknife_error(left), len(left) - 1
    if not math.isfinite(error):
        return None
    if bounds is None or not bounds[0] <= value <= bounds[1]:
        return t_limits(value, error, freedom)
    least, span = bounds[0], bounds[1] - bounds[0]
    share = (value - least) / span
    if error == 0 or share in (0.0, 1.0):
        low, high = score_ends(share, Z**2 / units)
    else:
        at = float(special.logit(share))
        low, high = map(float, special.expit(t_limits(at, error / span / (share * (1 - share)), freedom)))
    return least + span * low, least + span * high
