"""How sure the numbers are: intervals, paired differences, and what follows from them (verdicts, ranks, fronts).

All variants answer the same samples, so a difference is taken sample by sample. The numbers of one variant on one task by
one metric are an `Observations`; `interval` is about one of them, `paired` about two. Everything is a pure function of
its arguments and its seed.

    >>> import numpy as np
    >>> lora, base = Observations(np.repeat([1, 0], [18, 2])), Observations(np.repeat([1, 0], [9, 11]))
    >>> round(paired(lora, base).p, 4)
    0.0039
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.errors import UserError
from harness.stats.proportions import mcnemar_interval, mcnemar_p, smallest_shown, wilson
from harness.stats.resampling import (
    Array,
    Statistic,
    Units,
    bootstrap,
    codes_of,
    deal,
    jackknife_error,
    make_units,
    mean_units,
    spread_of,
)

SpreadTest = Literal["paired bootstrap", "clustered t", "paired jackknife"]
Test = Literal["mcnemar"] | SpreadTest

FEW_CLUSTERS = 10
"""With fewer, resampling clusters understates the spread, and the t distribution is used instead."""
_MEAN_RESAMPLES, _CORPUS_RESAMPLES = 10_000, 2_000


@dataclass(frozen=True, eq=False)
class Observations:
    """What one variant scored on one task by one metric, sample by sample, in the task's sample order.

    Args:
        values: `[n]` scores; `[n, k]` statistics of a corpus metric; or n things of any kind, with `whole`.
        value: From the sum of the statistics to the number.
        whole: From a list of the things to the number, where sums do not tell. Without `value` and `whole` the number is
            the mean of the scores.
        groups: Stratum of each sample.
        clusters: What each sample shares with others (a passage); samples of a cluster are not independent.

    Raises:
        UserError: There is no sample.
        ValueError: The shapes do not fit each other.

    Example:
        >>> Observations(np.array([1, 0, 1]), groups=("law", "law", "art")).binary
        True
    """

    values: Any
    value: Callable[[tuple[float, ...]], float] | None = None
    groups: tuple[str, ...] | None = None
    clusters: tuple[str, ...] | None = None
    whole: Callable[[Sequence[Any]], float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64) if self.whole is None else _objects(self.values)
        object.__setattr__(self, "values", values)
        if len(values) == 0:
            raise UserError("no sample was scored", hint="does the task's data have rows, and is `--limit` above 0?")
        if self.value is not None and self.whole is not None:
            raise ValueError("a number is made by `value` or by `whole`, not by both")
        if values.ndim != (1 if self.value is None else 2):
            raise ValueError(f"scores are [n], summed statistics [n, k] with `value`; got shape {values.shape}")
        for labels in (self.groups, self.clusters):
            if labels is not None and len(labels) != len(values):
                raise ValueError(f"{len(labels)} labels for {len(values)} samples")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return self.value is None and self.whole is None and bool(np.isin(self.values, (0.0, 1.0)).all())

    @cached_property
    def left_out(self) -> Array:
        """`[g]` numbers of the whole, each without one part of the jackknife; kept, as they are dear."""
        parts = deal(len(self), self.groups, self.clusters)
        count = int(parts.max()) + 1
        if count < 2:  # nothing would be left
            return np.array([math.nan])
        return np.array([_whole(self, self.values[parts != part]) for part in range(count)])


@dataclass(frozen=True)
class Interval:
    """A score and where its true value may lie."""

    value: float | None
    """None: a sample's score, or what is made of them, is not a finite number."""
    low: float | None
    """None: a single sample (or cluster) tells nothing about the spread."""
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A paired difference a − b, its 95 % interval, and how often chance alone would show one as large."""

    test: Test
    value: float
    low: float
    high: float
    p: float
    warning: str | None = None


class GroupValue(NamedTuple):
    """A score within one group; `value` is None where it is not finite."""

    name: str
    value: float | None
    n: int


def interval(obs: Observations, *, confidence: float = 0.95, seed: int = 0, resamples: int | None = None) -> Interval:
    """A score with its confidence interval.

    0/1 scores that are not clustered get Wilson's interval (JASA 1927); strata are left out of it, which makes it a
    little wide. Other scores get the percentiles of a bootstrap, stratified by group and by whole clusters, at the
    levels that make it as wide as a t interval (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015);
    they stay within the metric's range. Fewer than ten clusters: the jackknife over clusters, t with G − 1 degrees of
    freedom. A number of the whole set: the delete-a-group jackknife, likewise, which knows no range.

    Args:
        obs: The scores.
        confidence: Chance that such an interval covers the true value.
        seed: Of the resampling.
        resamples: 10,000 for means and 2,000 for corpus metrics when not given.

    Example:
        >>> wilson = interval(Observations(np.repeat([1, 0], [8, 2])))
        >>> wilson.value, round(wilson.low, 3), round(wilson.high, 3)
        (0.8, 0.49, 0.943)
    """
    value = _value(obs)
    if value is None:
        return Interval(None, None, None)
    tail = (1 - confidence) / 2
    if obs.whole is not None:
        return _interval_of_whole(obs, value, tail)
    if obs.binary and obs.clusters is None:
        return Interval(value, *wilson(value, len(obs), confidence))
    units = _units(obs)
    if len(units) < 2:
        return Interval(value, None, None)
    if _few_clusters(obs, units):
        margin = -float(special.stdtrit(len(units) - 1, tail)) * jackknife_error(units)
        low, high = value - margin, value + margin
    else:
        draws = bootstrap(units, seed=seed, resamples=resamples or _resamples(obs))
        level = float(special.ndtr(special.stdtrit(units.freedom, tail)))
        low, high = (float(limit) for limit in np.quantile(draws, [level, 1 - level]))
    return Interval(value, low, high) if math.isfinite(low) and math.isfinite(high) else Interval(value, None, None)


def _interval_of_whole(obs: Observations, value: float, tail: float) -> Interval:
    left = obs.left_out
    if len(left) < 2 or not np.isfinite(left).all():
        return Interval(value, None, None)
    margin = -float(special.stdtrit(len(left) - 1, tail)) * spread_of(left)
    return Interval(value, value - margin, value + margin)


def paired(a: Observations, b: Observations, *, seed: int = 0) -> Difference | None:
    """The difference a − b of two variants on the same samples.

    - 0/1 scores, no clusters: McNemar's exact test. The interval is Tango's score interval (Statistics in Medicine
      1998), drawn out towards 0 to where the exact test would stop rejecting.
    - otherwise the paired bootstrap, stratified by group and by whole clusters: t distribution with the bootstrap's
      standard error. Where m samples differ at all, p is at least 2 × 0.5^m, what exchanging a and b at random
      allows, so fewer than six differing samples show nothing.
    - fewer than ten clusters: the same t distribution with the jackknife's error and G − 1 degrees of freedom, strata
      left out, and a warning.
    - numbers of the whole set: the jackknife of the difference, leaving out the same samples of both; t with one degree of
      freedom less than there are parts, and the least p of the second point.

    In all four, p < 0.05 exactly when 0 is outside the interval.

    Args:
        a: The variant in question.
        b: The variant it is compared with.
        seed: Of the resampling.

    Returns:
        None where nothing can be said: a score is not finite, or scores that are not 0/1 come from a single sample or
        cluster.

    Raises:
        ValueError: The two are not about the same samples.

    Example:
        >>> worse, better = Observations(np.zeros(9)), Observations(np.ones(9))
        >>> difference = paired(better, worse)
        >>> difference.test, difference.value, round(difference.p, 4)
        ('mcnemar', 1.0, 0.0039)
    """
    _same_samples(a, b)
    if _exact(a, b):
        n, wins, losses = len(a), int(np.sum(a.values > b.values)), int(np.sum(a.values < b.values))
        low, high = mcnemar_interval(n, wins, losses)
        return Difference("mcnemar", (wins - losses) / n, low, high, mcnemar_p(wins, losses))
    found = spread(a, b, seed)
    if found is None:
        return None
    value, error = found.value, found.error
    margin = -float(special.stdtrit(found.freedom, 0.025)) * error
    low, high = value - margin, value + margin
    p = 2 * float(special.stdtr(found.freedom, -abs(value) / error)) if error > 0 else 0.0
    few = a.clusters is not None and found.units < FEW_CLUSTERS
    if error == 0 or not few:
        p = max(p, min(1.0, 2.0 ** (1 - found.differing)))
        if p >= 0.05:
            low, high = min(low, 0.0), max(high, 0.0)
    warning = f"only {found.units} clusters: a rough estimate" if few else None
    return Difference(found.test, value, low, high, p, warning)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values so that one false finding among them all stays as rare as one p-value says.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (Scandinavian Journal of Statistics 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def smallest_difference(
    a: Observations, b: Observations, *, power: float = 0.8, alpha: float = 0.05, seed: int = 0
) -> float | None:
    """The smallest true difference that so many samples would show, given how a and b vary together.

    0/1 scores: the smallest d that McNemar's exact test at `alpha` finds with probability `power`, when a share
    max(s, d) of the samples differs, s being the share that differed here. Other scores: (t_{1 − alpha/2} + t_power) ×
    the standard error of the paired difference.

    Args:
        a: The scores of one variant.
        b: The scores of the other, on the same samples.
        power: How surely the difference would be shown.
        alpha: Level of the two-sided test.
        seed: Of the resampling.

    Returns:
        The difference in the metric's own scale; None where no difference could be shown or the spread is unknown.

    Example:
        >>> round(smallest_difference(Observations(np.ones(100)), Observations(np.ones(100))), 3)
        0.078
    """
    _same_samples(a, b)
    if _exact(a, b):
        return smallest_shown(len(a), float(np.mean(a.values != b.values)), power=power, alpha=alpha)
    found = spread(a, b, seed)
    if found is None or found.error == 0:
        return None
    return float(special.stdtrit(found.freedom, 1 - alpha / 2) + special.stdtrit(found.freedom, power)) * found.error


def verdict(
    value: float, p_holm: float, higher_is_better: bool, alpha: float = 0.05
) -> Literal["better", "worse", "undecided"]:
    """What a difference says once its p-value is adjusted.

    Example:
        >>> verdict(-0.7, 0.001, higher_is_better=False)
        'better'
    """
    if value == 0 or not p_holm < alpha:
        return "undecided"
    return "better" if (value > 0) == higher_is_better else "worse"


def win_rate(a: Observations, b: Observations, higher_is_better: bool = True) -> float | None:
    """Share of the samples where a scored better than b; ties count half.

    Args:
        a: The variant in question.
        b: The variant it is compared with, on the same samples.
        higher_is_better: Direction of the metric.

    Returns:
        None where samples have no score of their own, or one that is not finite.

    Example:
        >>> win_rate(Observations([0.1, 0.5, 0.2, 0.9]), Observations([0.2, 0.5, 0.1, 0.3]))
        0.625
    """
    if a.value is not None or a.whole is not None or not np.isfinite([*a.values, *b.values]).all():
        return None
    won = np.sign(a.values - b.values) * (1 if higher_is_better else -1)
    return float(np.mean((won + 1) / 2))


def ranks(names: Sequence[str], better: Callable[[str, str], bool]) -> dict[str, int]:
    """Rank of each variant: 1 + how many were shown better than it, so those that cannot be told apart share one.

    Args:
        names: The variants.
        better: Whether the first was shown better than the second.

    Example:
        >>> ranks(["base", "lora", "qlora"], lambda a, b: b == "base" and a == "lora")
        {'base': 2, 'lora': 1, 'qlora': 1}
    """
    return {name: 1 + sum(better(other, name) for other in names if other != name) for name in names}


def pareto(points: Mapping[str, tuple[float, float]], *, higher_is_better: bool = True) -> list[str]:
    """The variants that no other beats: none is as good at less cost, or better at no more cost.

    Args:
        points: (quality, cost) by name; cost is better low. A point with NaN is on no front.
        higher_is_better: Direction of the quality.

    Returns:
        Names in the order of `points`; equal points stay together.

    Example:
        >>> pareto({"base": (0.3, 0), "full": (0.5, 9), "lora": (0.5, 4), "prefix": (0.4, 6)})
        ['base', 'lora']
    """
    sign = 1 if higher_is_better else -1
    signed = {name: (sign * quality, cost) for name, (quality, cost) in points.items() if quality == quality}
    signed = {name: point for name, point in signed.items() if point[1] == point[1]}

    def beaten(point: tuple[float, float]) -> bool:
        return any(q >= point[0] and cost <= point[1] and (q, cost) != point for q, cost in signed.values())

    return [name for name, point in signed.items() if not beaten(point)]


def by_group(obs: Observations) -> list[GroupValue]:
    """The score within each group, in the order in which groups first appear; empty without groups.

    Example:
        >>> by_group(Observations(np.array([1, 0, 1]), groups=("law", "law", "art")))
        [GroupValue(name='law', value=0.5, n=2), GroupValue(name='art', value=1.0, n=1)]
    """
    if obs.groups is None:
        return []
    codes, names = codes_of(obs.groups)
    parts = [Observations(obs.values[codes == code], obs.value, whole=obs.whole) for code in range(len(names))]
    return [GroupValue(name, _value(part), len(part)) for name, part in zip(names, parts, strict=True)]


def macro(obs: Observations) -> float | None:
    """The unweighted mean over groups; None without groups or where a group's score is not finite.

    Example:
        >>> macro(Observations(np.array([1, 0, 1]), groups=("law", "law", "art")))
        0.75
    """
    values = [group.value for group in by_group(obs)]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Spread:
    """A paired difference and its standard error."""

    test: SpreadTest
    value: float
    error: float
    freedom: int
    units: int
    differing: int
    """Units on which the two are not equal."""


def spread(a: Observations, b: Observations, seed: int) -> Spread | None:
    """The paired difference a − b and how it varies over samples; None where a score is not finite or nothing tells."""
    first, second = _value(a), _value(b)
    if first is None or second is None:
        return None
    test, units, freedom, error = _error_of_whole(a, b) if a.whole is not None else _error_of_sums(a, b, seed)
    if units < 2 or not math.isfinite(error):
        return None
    value = first - second
    return Spread(
        test=test,
        value=value,
        error=0.0 if error <= 1e-12 * abs(value) else error,  # what rounding leaves is no spread
        freedom=freedom,
        units=units,
        differing=_differing(a, b),
    )


def _error_of_sums(a: Observations, b: Observations, seed: int) -> tuple[SpreadTest, int, int, float]:
    """Of a difference of means or corpus metrics: how it was found, units, degrees of freedom, standard error."""
    units = _paired_units(a, b)
    if _few_clusters(a, units):
        return "clustered t", len(units), len(units) - 1, jackknife_error(units)
    if len(units) < 2:
        return "paired bootstrap", len(units), 0, math.nan
    error = float(np.std(bootstrap(units, seed=seed, resamples=_resamples(a)), ddof=1))
    return "paired bootstrap", len(units), units.freedom, error


def _error_of_whole(a: Observations, b: Observations) -> tuple[SpreadTest, int, int, float]:
    """As `_error_of_sums`, of a difference of two numbers of the whole set."""
    left = a.left_out - b.left_out  # both were dealt out alike: they have the same labels
    return "paired jackknife", len(left), len(left) - 1, spread_of(left)


def _differing(a: Observations, b: Observations) -> int:
    unequal = (a.values != b.values).reshape(len(a), -1).any(axis=1)
    if a.clusters is None:
        return int(unequal.sum())
    return len({cluster for cluster, differs in zip(a.clusters, unequal.tolist(), strict=True) if differs})


def _few_clusters(obs: Observations, units: Units) -> bool:
    return obs.clusters is not None and len(units) < FEW_CLUSTERS


def _units(obs: Observations) -> Units:
    if obs.value is None:
        return mean_units(obs.values, obs.groups, obs.clusters)
    return make_units(obs.values, _each(obs.value), obs.groups, obs.clusters)


def _paired_units(a: Observations, b: Observations) -> Units:
    """Two means differ by the mean of the differences; two corpus metrics are computed from the same resamples."""
    if a.value is None or b.value is None:
        return mean_units(a.values - b.values, a.groups, a.clusters)
    first, second, width = _each(a.value), _each(b.value), a.values.shape[1]

    def difference(sums: Array) -> Array:
        return first(sums[:, :width]) - second(sums[:, width:])

    return make_units(np.hstack([a.values, b.values]), difference, a.groups, a.clusters)


def _each(value: Callable[[tuple[float, ...]], float]) -> Statistic:
    return lambda sums: np.array([_number(value, row) for row in sums])


def _number(value: Callable[[tuple[float, ...]], float], sums: Array) -> float:
    try:
        return float(value(tuple(sums.tolist())))
    except ArithmeticError:  # no word at all, or a perplexity beyond any float
        return math.nan


def _whole(obs: Observations, values: NDArray[Any]) -> float:
    assert obs.whole is not None
    try:
        return float(obs.whole(values.tolist()))
    except (ArithmeticError, ValueError):  # a single class has no area under a curve, an empty text no n-gram
        return math.nan


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """`[n]` things as they are: NumPy would make lists of one length a table."""
    kept = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        kept[index] = value
    return kept


def _value(obs: Observations) -> float | None:
    if obs.whole is not None:
        number = _whole(obs, obs.values)
        return number if math.isfinite(number) else None
    if not np.isfinite(obs.values).all():
        return None
    value = math.fsum(obs.values) / len(obs) if obs.value is None else _number(obs.value, obs.values.sum(axis=0))
    return value if math.isfinite(value) else None


def _resamples(obs: Observations) -> int:
    return _MEAN_RESAMPLES if obs.value is None else _CORPUS_RESAMPLES


def _exact(a: Observations, b: Observations) -> bool:
    return a.binary and b.binary and a.clusters is None


def _same_samples(a: Observations, b: Observations) -> None:
    if a.values.shape != b.values.shape or a.groups != b.groups or a.clusters != b.clusters:
        raise ValueError("a paired difference needs the same samples in the same order, groups and clusters included")
