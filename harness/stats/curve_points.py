"""Points of a curve: consecutive steps joined into a limited number of blocks.

>>> [(block.start, block.stop) for block in blocks(5, 2)]
[(0, 2), (2, 5)]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

MOST = 200
"""Points of a loss curve: more cannot be told apart in a plot."""

CurveFigures = Mapping[str, float | None]
"""`step`, `loss`, and as far as known `lr`, `grad_norm`, `tokens` and `seconds`."""


def blocks(count: int, most: int) -> list[slice]:
    """Divides steps into at most `most` blocks of almost equal length, in order."""
    parts = min(most, count)
    edges = [count * index // parts for index in range(parts + 1)] if parts else [0]
    return [slice(first, last) for first, last in pairwise(edges)]


def thinned(steps: Sequence[Mapping[str, Any]], most: int = MOST) -> tuple[CurveFigures, ...]:
    """Joins the steps of a training log into at most `most` points.

    Loss and gradient norm are means over the steps of a point, `lr` is that of its last step, tokens and seconds are sums
    from the first step of the log up to there, all with six digits. A number that is not finite is None.

    Example:
        >>> log = [{"step": n + 1, "loss": 4.0 - n, "lr": 0.1, "grad_norm": 1.0, "tokens": 10, "seconds": 0.5} for n in range(4)]
        >>> thinned(log, most=2)[1]
        {'step': 4, 'loss': 1.5, 'lr': 0.1, 'grad_norm': 1.0, 'tokens': 40, 'seconds': 2.0}
    """
    sums = {name: list(accumulate(step.get(name) or 0 for step in steps)) for name in ("tokens", "seconds")}
    found = []
    for block in blocks(len(steps), most):
        members, last = steps[block], steps[block.stop - 1]
        point = {"step": last["step"], "loss": _mean(members, "loss"), "lr": last.get("lr")}
        point["grad_norm"] = _mean(members, "grad_norm")
        found.append(point | {name: _six_digits(total[block.stop - 1]) for name, total in sums.items() if name in last})
    return tuple(found)


def _mean(steps: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The mean of a figure; None where a step lacks it or the mean is not finite."""
    values = [step.get(name) for step in steps]
    if None in values:
        return None
    mean = sum(values) / len(values)  # type: ignore[arg-type]
    return _six_digits(mean) if math.isfinite(mean) else None


def _six_digits(number: float) -> float:
    return number if isinstance(number, int) else float(f"{number:.6g}")
