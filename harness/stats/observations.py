"""The scores of one variant on one task by one metric, sample by sample, and the numbers that they make.

>>> import numpy as np
>>> Observations(np.array([1, 0, 1, 1])).number
0.75
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.stats.jackknife import GROUPS_OF_SUMS, GROUPS_OF_WHOLE
from harness.stats.units import Array, Layout, codes_of
from harness.user_code import calling


@dataclass(frozen=True, eq=False)
class Observations:
    """The scores of one variant on one task by one metric, in the task's sample order.

    Args:
        values: `[n]` scores; `[n, k]` statistics of a corpus metric, with `value`; or n objects of any type, with `whole`.
        value: Computes the number from the sum of the statistics.
        whole: Computes the number from the list of all objects, for metrics that sums cannot express. Without `value`
            and `whole` the number is the mean of the scores.
        groups: Stratum of each sample.
        clusters: Cluster of each sample (a passage, for example); samples of one cluster are not independent.
        bounds: Ends of the scale of the number, if it has any.

    Raises:
        UserError: There are no samples.
        ValueError: The shapes do not match.

    Example:
        >>> Observations(np.array([1, 0, 1]), groups=("law", "law", "art")).binary
        True
    """

    values: Any
    value: Callable[[tuple[float, ...]], float] | None = None
    groups: tuple[str, ...] | None = None
    clusters: tuple[str, ...] | None = None
    whole: Callable[[Sequence[Any]], float] | None = field(default=None, kw_only=True)
    bounds: tuple[float, float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64) if self.whole is None else _objects(self.values)
        object.__setattr__(self, "values", values)
        if len(values) == 0:
            raise UserError("no sample was scored", hint="does the task's data have rows, and is `--limit` above 0?")
        if self.value is not None and self.whole is not None:
            raise ValueError("give `value` or `whole`, not both")
        if values.ndim != (1 if self.value is None else 2):
            raise ValueError(f"scores are [n], summed statistics [n, k] with `value`; got shape {values.shape}")
        for labels in (self.groups, self.clusters):
            if labels is not None and len(labels) != len(values):
                raise ValueError(f"{len(labels)} labels for {len(values)} samples")

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return self.is_mean and bool(((self.values == 0) | (self.values == 1)).all())

    @property
    def is_mean(self) -> bool:
        """Whether the number is the mean of the samples' own scores."""
        return self.value is None and self.whole is None

    @cached_property
    def range(self) -> tuple[float, float] | None:
        """The range that every score is known to be in; None if a mean has no bounds, or a score is outside of them."""
        if self.binary:
            return (0.0, 1.0)
        if not self.is_mean or self.bounds is None:
            return None
        least, most = self.bounds
        return self.bounds if least <= float(self.values.min()) and float(self.values.max()) <= most else None

    @cached_property
    def layout(self) -> Layout:
        """The independent units: samples or clusters."""
        return Layout.of(len(self), self.groups, self.clusters)

    @cached_property
    def number(self) -> float | None:
        """The score over all samples; None where it is not finite."""
        if self.whole is not None:
            found = finite_or_nan(self.whole, self.values.tolist())
        elif not np.isfinite(self.values).all():
            return None
        elif self.value is None:
            found = math.fsum(self.values) / len(self)
        else:
            found = finite_or_nan(self.value, tuple(self.values.sum(axis=0).tolist()))
        return found if math.isfinite(found) else None

    @cached_property
    def own(self) -> Array | None:
        """`[n]` scores of the samples: by a corpus metric, the metric of each sample alone; NaN where that is no number.

        None for metrics of the whole set, which a single sample does not have.
        """
        if self.whole is not None:
            return None
        if self.value is None:
            return np.asarray(self.values, dtype=np.float64)
        return np.array([finite_or_nan(self.value, tuple(row)) for row in self.values.tolist()])

    @cached_property
    def left_out(self) -> Array:
        """`[g]` numbers, each without one jackknife group; cached: expensive to compute."""
        parts = self.layout.deal(GROUPS_OF_SUMS if self.whole is None else GROUPS_OF_WHOLE)
        count = int(parts.max()) + 1
        if count < 2:  # nothing would be left
            return np.array([math.nan])
        if self.whole is not None:
            return np.array([finite_or_nan(self.whole, self.values[parts != part].tolist()) for part in range(count)])
        assert self.value is not None
        sums = np.zeros((count, self.values.shape[1]))
        np.add.at(sums, parts, self.values)
        return np.array([finite_or_nan(self.value, tuple(row)) for row in (self.values.sum(axis=0) - sums).tolist()])


class GroupValue(NamedTuple):
    """A score within one group; `value` is None where it is not finite."""

    name: str
    value: float | None
    n: int


def group_parts(obs: Observations) -> dict[str, Observations]:
    """Divides the samples by group, in the order in which groups first appear; empty without groups."""
    if obs.groups is None:
        return {}
    codes, names = codes_of(obs.groups)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return {name: _part(obs, each) for name, each in zip(names, members, strict=True)}


def _part(obs: Observations, members: NDArray[np.intp]) -> Observations:
    clusters = None if obs.clusters is None else tuple(obs.clusters[index] for index in members)
    return Observations(obs.values[members], obs.value, None, clusters, whole=obs.whole, bounds=obs.bounds)


def by_group(obs: Observations) -> list[GroupValue]:
    """Computes the score within each group, in the order in which groups first appear; empty without groups.

    Example:
        >>> by_group(Observations(np.array([1, 0, 1]), groups=("law", "law", "art")))
        [GroupValue(name='law', value=0.5, n=2), GroupValue(name='art', value=1.0, n=1)]
    """
    return [GroupValue(name, part.number, len(part)) for name, part in group_parts(obs).items()]


def macro(obs: Observations) -> float | None:
    """Computes the unweighted mean over groups; None without groups or where a group's score is not finite.

    Example:
        >>> macro(Observations(np.array([1, 0, 1]), groups=("law", "law", "art")))
        0.75
    """
    values = [group.value for group in by_group(obs)]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def finite_or_nan(function: Callable[[Any], float], given: Any) -> float:
    """Calls a metric's function; NaN where these samples allow no number.

    Examples are a perplexity without words, one that overflows a float, the logarithm of 0, and an area under a curve of
    a single class.
    """
    try:
        with calling(function, "a metric of all samples"):
            return float(function(given))
    except (ArithmeticError, ValueError):
        return math.nan


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """Returns `[n]` objects as they are: NumPy would turn lists of equal length into a table."""
    kept = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        kept[index] = value
    return kept
