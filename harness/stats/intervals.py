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

from harness.stats.areas import ROUGH_ABOVE, ROUGH_BELOW, area_limits, is_rough
from harness.stats.functions import LabelMean, RocArea, SumRatio
from harness.stats.jackknife import jackknife_limits
from harness.stats.label_means import FEWEST_OF_LABEL, has_rare_labels, label_mean_limits
from harness.stats.observations import Observations
from harness.stats.proportions import wilson
from harness.stats.spread import cr2, t_limits
from harness.stats.sum_ratios import mean_limits, ratio_limits


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % confidence interval."""

    value: float | None
    """None: the score is not a finite number."""
    low: float | None
    """None: the spread is unknown, for example with a single sample or cluster."""
    high: float | None
    warning: str | None = None
    """Why the interval is rough; None if it is not."""


def interval(obs: Observations) -> Interval:
    """Computes a score and its 95 % confidence interval; every method is a closed form, without resampling.

    - 0/1 scores without clusters: Wilson's interval (JASA 1927). It ignores strata, which makes it slightly wide.
    - Scores within known bounds: the score interval with the variance of the samples, stratified by group; with clusters,
      their CR2 error.
    - Scores without bounds: the union of the t interval and Hall's, which is corrected for skewness.
    - `SumRatio`: CR2 over documents or clusters, on the scale of the mean.
    - `LabelMean`, `RocArea`: intervals of their own; with clusters, the next one.
    - Other metrics of the whole set: the jackknife, t on the logit scale if the metric has bounds.
    """
    value = obs.number
    if value is None:
        return Interval(None, None, None)
    found, warning = _limits(obs, value), None
    if found is None or not all(map(math.isfinite, found)):
        return Interval(value, None, None)
    if isinstance(obs.value, LabelMean) and has_rare_labels(obs.values):
        warning = f"a label has fewer than {FEWEST_OF_LABEL} samples, so the interval is rough"
    if isinstance(obs.whole, RocArea) and is_rough(obs.values.tolist(), value):
        warning = (
            f"the interval is rough above {ROUGH_ABOVE} and with fewer than {ROUGH_BELOW} samples of the rarer label"
        )
    return Interval(value, *found, warning)


def _limits(obs: Observations, value: float) -> tuple[float, float] | None:
    alone = obs.clusters is None
    if obs.is_mean:
        return _mean_limits(obs)
    if isinstance(obs.value, SumRatio):
        return ratio_limits(obs.values, obs.layout, obs.value, obs.bounds)
    if isinstance(obs.value, LabelMean) and alone:
        return label_mean_limits(obs.value, obs.values)
    if isinstance(obs.whole, RocArea) and alone and (found := area_limits(obs.values.tolist())):
        return found
    return jackknife_limits(value, obs.left_out, len(obs.layout), obs.bounds)


def _mean_limits(obs: Observations) -> tuple[float, float] | None:
    if obs.binary and obs.clusters is None:
        return wilson(float(obs.number or 0.0), len(obs))
    layout = obs.layout
    if len(layout) < 2:
        return None
    totals, sizes = layout.sums(obs.values), layout.sums(np.ones(len(obs)))
    if obs.range is not None:
        return mean_limits(totals, sizes, layout, obs.range, clustered=layout.clustered)
    found = cr2(totals, sizes, layout.strata)
    (low, high), (lower, higher) = t_limits(found.mean, found.error, found.freedom), found.skewness_corrected.limits()
    return min(low, lower), max(high, higher)
