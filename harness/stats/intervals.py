"""The confidence interval of one score.

>>> import numpy as np
>>> found = interval(Observations(np.repeat([1, 0], [8, 2])))
>>> found.value, round(found.low, 3), round(found.high, 3)
(0.8, 0.49, 0.943)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.stats.observations import Observations
from harness.stats.proportions import wilson
from harness.stats.resampling import bootstrap, jackknife_error, spread_of


@dataclass(frozen=True)
class Interval:
    """A score and its confidence interval."""

    value: float | None
    """None: the score is not a finite number."""
    low: float | None
    """None: the spread is unknown, for example with a single sample or cluster."""
    high: float | None


def interval(obs: Observations, *, confidence: float = 0.95, seed: int = 0, resamples: int | None = None) -> Interval:
    """Computes a score and its confidence interval.

    - 0/1 scores without clusters: Wilson's interval (JASA 1927). It ignores strata, which makes it slightly wide.
    - Other scores: percentiles of a bootstrap, stratified by group and drawn by whole clusters. The percentile levels
      make it as wide as a t interval (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015). The interval
      stays within the metric's range.
    - Fewer than ten clusters: the jackknife over clusters, t with G − 1 degrees of freedom.
    - A metric of the whole set: the delete-a-group jackknife, t likewise. It does not know the metric's range.

    Args:
        obs: The scores.
        confidence: Probability that such an interval covers the true value.
        seed: Seed of the resampling.
        resamples: Number of bootstrap resamples; None: 10,000 for means and 2,000 for corpus metrics.
    """
    value = obs.number
    if value is None:
        return Interval(None, None, None)
    tail = (1 - confidence) / 2
    if obs.whole is not None:
        left = obs.left_out
        return _t_interval(value, spread_of(left), len(left) - 1, tail)
    if obs.binary and obs.clusters is None:
        return Interval(value, *wilson(value, len(obs), confidence))
    units = obs.units()
    if obs.few_clusters:
        return _t_interval(value, jackknife_error(units), len(units) - 1, tail)
    if len(units) < 2:
        return Interval(value, None, None)
    draws = bootstrap(units, seed=seed, resamples=resamples or obs.resamples)
    level = float(special.ndtr(special.stdtrit(units.freedom, tail)))
    low, high = (float(limit) for limit in np.quantile(draws, [level, 1 - level]))
    return Interval(value, low, high) if math.isfinite(low) and math.isfinite(high) else Interval(value, None, None)


def _t_interval(value: float, error: float, freedom: int, tail: float) -> Interval:
    if freedom < 1 or not math.isfinite(error):
        return Interval(value, None, None)
    margin = -float(special.stdtrit(freedom, tail)) * error
    return Interval(value, value - margin, value + margin)
