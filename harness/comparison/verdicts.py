"""Verdicts on differences, with p-values adjusted for the number of differences tested together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from harness.results import Delta, verdict_of
from harness.stats.paired import Difference, holm

Key = TypeVar("Key")


class Tested(NamedTuple):
    """A difference that needs a verdict."""

    difference: Difference
    higher_is_better: bool
    win_rate: float | None = None


def judge(tested: Mapping[Key, Tested], *, adjusted: bool = True) -> dict[Key, Delta]:
    """Judges differences.

    Args:
        tested: The differences that are tested together.
        adjusted: Whether to base the verdicts on p-values that are Holm-adjusted over all of them.
    """
    p_values = [each.difference.p for each in tested.values()]
    p_holm = holm(p_values) if adjusted else [None] * len(p_values)
    return {
        key: Delta(
            value=each.difference.value,
            low=each.difference.low,
            high=each.difference.high,
            p=each.difference.p,
            p_holm=p,
            verdict=verdict_of(each.difference.value, each.difference.p if p is None else p, each.higher_is_better),
            win_rate=each.win_rate,
        )
        for (key, each), p in zip(tested.items(), p_holm, strict=True)
    }
