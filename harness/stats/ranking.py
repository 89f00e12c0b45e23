"""The order of variants: ranks as intervals, and Pareto fronts of quality and cost, from what was shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Rank(NamedTuple):
    """The ranks that a variant may have."""

    best: int
    worst: int


def ranks(names: Sequence[str], better: Callable[[str, str], bool]) -> dict[str, Rank]:
    """Ranks variants: from 1 + the number of variants shown to be better, to their number less those shown to be worse.

    Args:
        names: The variants.
        better: Whether the first was shown to be better than the second.

    Example:
        >>> ranks(["base", "lora", "qlora"], lambda a, b: b == "base" and a == "lora")["qlora"]
        Rank(best=1, worst=3)
    """
    return {
        name: Rank(
            1 + sum(better(other, name) for other in names if other != name),
            len(names) - sum(better(name, other) for other in names if other != name),
        )
        for name in names
    }


class Front(NamedTuple):
    """The variants on a Pareto front, and those that may be on it: neither was shown."""

    on: list[str]
    maybe: list[str]


def pareto(costs: Mapping[str, float], better: Callable[[str, str], bool]) -> Front:
    """Finds the variants that no variant dominates by being better and not more expensive.

    A variant is on the front if it was shown to be better than every variant that is not more expensive, and off the front if
    one of these was shown to be better than it.

    Args:
        costs: Cost by name; lower is better. A variant whose cost is NaN is on no front.
        better: Whether the first was shown to be better than the second.

    Example:
        >>> pareto({"base": 0, "lora": 4, "full": 9}, lambda a, b: (a, b) in {("lora", "base"), ("full", "base")})
        Front(on=['base', 'lora'], maybe=['full'])
    """
    known = {name: cost for name, cost in costs.items() if cost == cost}
    front = Front([], [])
    for name, cost in known.items():
        rivals = [other for other, price in known.items() if other != name and price <= cost]
        if all(better(name, other) for other in rivals):
            front.on.append(name)
        elif not any(better(other, name) for other in rivals):
            front.maybe.append(name)
    return front
