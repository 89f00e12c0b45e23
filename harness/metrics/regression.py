r"""Regression: errors of the numbers in a model's texts, and their correlation with the targets.

The number of a text is the first one in it, or the last one if the sample has `meta["number"] = "last"`: digits with a
decimal point, an exponent, a sign, or commas between groups of three. Errors and correlation ignore a text without a
number; report `parsed`, the share of texts with a number, together with them.

    >>> from harness.api import Generate, Output
    >>> first_number("about −1,200.5 or 3"), last_number("about -1,200.5 or 3"), first_number("nan")
    (-1200.5, 3.0, None)
    >>> mae.measure(Output(texts=("It is 4.5.",)), Generate("Stars:", "5"))
    (0.5, 1.0)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from harness.api import Generate, Metric, Output, Stats
from harness.errors import UserError
from harness.metrics.kinds import Extracting, expect, mean_of_sums, targets_of

_NUMBER = re.compile(
    r"(?<![A-Za-z_\d])(?:(?<!\w)[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\.)\.\d+)(?:[eE][-+]?\d+)?"
)


def first_number(text: str) -> float | None:
    """Returns the first number of a text that a float can represent, or None."""
    return next(iter(_numbers(text)), None)


def last_number(text: str) -> float | None:
    """Returns the last number of a text that a float can represent, or None."""
    return next(iter(_numbers(text)[::-1]), None)


def _numbers(text: str) -> list[float]:
    found = [float(number.replace(",", "")) for number in _NUMBER.findall(text.replace("−", "-"))]
    return [number for number in found if math.isfinite(number)]


def _number_and_target(name: str, output: Output, sample: Any) -> tuple[float | None, float]:
    target, *_ = targets_of(expect(Generate, sample, name))
    try:
        wanted = float(target)
    except ValueError:
        wanted = math.nan
    if not math.isfinite(wanted):
        raise UserError(f"metric `{name}` needs a number as the target, not {target!r}", hint='for example `"3.5"`')
    return _parser(sample)(output.texts[0]), wanted


def _errors(name: str, size: Callable[[float], float]) -> Callable[[Output, Any], Stats]:
    def stats(output: Output, sample: Any) -> Stats:
        predicted, wanted = _number_and_target(name, output, sample)
        return (0.0, 0.0) if predicted is None else (size(predicted - wanted), 1.0)

    return Extracting(stats, _has_number)


def _has_number(output: Output, sample: Any) -> bool:
    return _parser(sample)(output.texts[0]) is not None


def _parser(sample: Any) -> Callable[[str], float | None]:
    return last_number if sample.meta.get("number") == "last" else first_number


def _products(output: Output, sample: Any) -> Stats:
    """Returns count, sums and products of both numbers, relative to `meta["center"]`, which preserves precision."""
    predicted, wanted = _number_and_target("pearson", output, sample)
    if predicted is None:
        return (0.0,) * 6
    center = float(sample.meta.get("center", 0.0))
    x, y = predicted - center, wanted - center
    return (1.0, x, y, x * x, y * y, x * y)


def _pearson(sums: Stats) -> float:
    n, x, y, xx, yy, xy = sums
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if spread_x <= 1e-12 * n * xx or spread_y <= 1e-12 * n * yy:
        return math.nan  # all numbers are equal, up to floating-point precision
    return max(-1.0, min(1.0, (n * xy - x * y) / math.sqrt(spread_x) / math.sqrt(spread_y)))


mae = Metric("mae", stats=_errors("mae", abs), value=mean_of_sums, higher_is_better=False)
"""0 and above, in the unit of the target. Mean absolute error over the texts with a number."""

mse = Metric("mse", stats=_errors("mse", lambda error: error * error), value=mean_of_sums, higher_is_better=False)
"""0 and above, in the squared unit of the target. Mean squared error over the texts with a number."""

rmse = Metric(
    "rmse",
    stats=_errors("rmse", lambda error: error * error),
    value=lambda sums: math.sqrt(mean_of_sums(sums)),
    higher_is_better=False,
)
"""0 and above, in the unit of the target. Root of the mean squared error over the texts with a number."""

pearson = Metric("pearson", stats=Extracting(_products, _has_number), value=_pearson, bounds=(-1, 1))
"""−1 to 1. Pearson's correlation of generated numbers and targets; none if all numbers or all targets are equal."""

parsed = Metric(
    "parsed", score=lambda output, sample: float(_number_and_target("parsed", output, sample)[0] is not None)
)
"""0–1. Share of texts with a number; errors and correlation are over these texts only."""
