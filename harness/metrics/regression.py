r"""How far numbers that a model writes are from those wanted.

The number of a text is the first that stands in it, or the last where the sample says `meta["number"] = "last"`: digits
with a decimal point, an exponent, a sign, or commas between groups of three. A text without one is left out of the errors
and of the correlation; `parsed` says how many have one, and belongs beside them.

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
from harness.metrics.kinds import expect

_NUMBER = re.compile(
    r"(?<![A-Za-z_\d])(?:(?<!\w)[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\.)\.\d+)(?:[eE][-+]?\d+)?"
)


def first_number(text: str) -> float | None:
    """The first number of a text; None where there is none, or none that a float can hold."""
    return next(iter(_numbers(text)), None)


def last_number(text: str) -> float | None:
    """The last number of a text; None where there is none, or none that a float can hold."""
    return next(iter(_numbers(text)[::-1]), None)


def _numbers(text: str) -> list[float]:
    found = [float(number.replace(",", "")) for number in _NUMBER.findall(text.replace("−", "-"))]
    return [number for number in found if math.isfinite(number)]


def _written_and_wanted(name: str, output: Output, sample: Any) -> tuple[float | None, float]:
    target = expect(Generate, sample, name).target
    try:
        wanted = float(target if isinstance(target, str) else target[0])
    except ValueError:
        wanted = math.nan
    if not math.isfinite(wanted):
        raise UserError(f"metric `{name}` needs a number as the target, not {target!r}", hint='for example `"3.5"`')
    parse = last_number if sample.meta.get("number") == "last" else first_number
    return parse(output.texts[0]), wanted


def _errors(name: str, size: Callable[[float], float]) -> Callable[[Output, Any], Stats]:
    def stats(output: Output, sample: Any) -> Stats:
        written, wanted = _written_and_wanted(name, output, sample)
        return (0.0, 0.0) if written is None else (size(written - wanted), 1.0)

    return stats


def _mean(sums: Stats) -> float:
    return sums[0] / sums[1] if sums[1] else math.nan


def _products(output: Output, sample: Any) -> Stats:
    """Count, sums and products of both numbers, counted from `meta["center"]`, which keeps their digits."""
    written, wanted = _written_and_wanted("pearson", output, sample)
    if written is None:
        return (0.0,) * 6
    center = float(sample.meta.get("center", 0.0))
    x, y = written - center, wanted - center
    return (1.0, x, y, x * x, y * y, x * y)


def _pearson(sums: Stats) -> float:
    n, x, y, xx, yy, xy = sums
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if spread_x <= 1e-12 * n * xx or spread_y <= 1e-12 * n * yy:
        return math.nan  # all are one number, as far as its digits tell
    return max(-1.0, min(1.0, (n * xy - x * y) / math.sqrt(spread_x) / math.sqrt(spread_y)))


mae = Metric("mae", stats=_errors("mae", abs), value=_mean, higher_is_better=False)
"""0 and above, in the unit of the target. Mean absolute error of the texts that hold a number."""

mse = Metric("mse", stats=_errors("mse", lambda error: error * error), value=_mean, higher_is_better=False)
"""0 and above, in the squared unit of the target. Mean squared error of the texts that hold a number."""

rmse = Metric(
    "rmse",
    stats=_errors("rmse", lambda error: error * error),
    value=lambda sums: math.sqrt(_mean(sums)),
    higher_is_better=False,
)
"""0 and above, in the unit of the target. Root of the mean squared error of the texts that hold a number."""

pearson = Metric("pearson", stats=_products, value=_pearson)
"""−1 to 1. Pearson's correlation of the numbers written with those wanted; none where either does not vary."""

parsed = Metric(
    "parsed", score=lambda output, sample: float(_written_and_wanted("parsed", output, sample)[0] is not None)
)
"""0–1. Share of texts that hold a number; errors and correlation are about these alone."""
