"""Verdicts on differences, with p-values adjusted for the number of differences tested together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from harness.results import Delta, verdict_of
from harness.stats.intervals import Interval
from harness.stats.paired import Difference, holm

Key = TypeVar("Key")


class Pair(NamedTuple):
    """Two variants on one metric of a task; the difference is a − b."""

    task: str
    metric: str
    a: str
    b: str


class Tested(NamedTuple):
    """A difference that needs a verdict."""

    difference: Difference
    higher_is_better: bool
    win_rate: Interval | None = None


def judge(tested: Mapping[Key, Tested], others: int = 0) -> dict[Key, Delta]:
    """Judges differences by p-values that are Holm-adjusted over all of them.

    A difference whose p-value without the guard against rare losses is significant, adjusted over the same family, is
    tentative if the guarded one is not.

    Args:
        tested: The differences.
        others: Number of further tests of the same family, which are judged elsewhere.
    """
    differences = [each.difference for each in tested.values()]
    guarded = holm([each.p for each in differences], others)
    unguarded = holm([each.p if each.p_unguarded is None else each.p_unguarded for each in differences], others)
    found = {}
    for (key, each), p, p_unguarded in zip(tested.items(), guarded, unguarded, strict=True):
        verdict = verdict_of(each.difference.value, p, each.higher_is_better)
        direction = verdict_of(each.difference.value, p_unguarded, each.higher_is_better)
        tentative = direction if verdict == "undecided" != direction else None
        found[key] = without_verdict(each).model_copy(update={"p_holm": p, "verdict": verdict, "tentative": tentative})
    return found


def without_verdict(tested: Tested) -> Delta:
    """Records the interval of a difference that gets no verdict, such as that of a metric besides the headline."""
    difference, won = tested.difference, tested.win_rate
    return Delta(
        value=difference.value,
        low=difference.low,
        high=difference.high,
        p=difference.p,
        verdict=None,
        untestable=difference.untestable,
        win_rate=None if won is None else won.value,
        win_rate_low=None if won is None else won.low,
        win_rate_high=None if won is None else won.high,
    )
