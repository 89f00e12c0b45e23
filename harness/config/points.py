"""Differences in points, as a user writes them: `5pts` is 0.05 of a metric's range.

>>> points("5pts"), points("0.5 pts")
(5.0, 0.5)
"""

from __future__ import annotations

import re
from typing import Any

from harness.errors import UserError

_POINTS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*pts?")


def points(text: str) -> float:
    """Returns the number of points in a text such as `5pts`.

    Raises:
        UserError: The text has no unit, is no number, or is not between 0 and 100.
    """
    found = _POINTS.fullmatch(text.strip())
    if found is None:
        number = re.fullmatch(r"\d+(?:\.\d*)?|\.\d+", text.strip())
        raise UserError(
            f"`--smallest {text}` has no unit" if number else f"`--smallest {text}` is not a difference in points",
            hint=f"write `--smallest {text.strip() if number else 5}pts`: points are hundredths of the metric's range",
        )
    number_of_points = float(found[1])
    if not 0 < number_of_points < 100:
        raise UserError(
            f"`--smallest {text}`: it must be more than 0 and less than 100 points", hint="`--smallest 5pts`"
        )
    return number_of_points


def checked(value: Any) -> str:
    """Returns a valid difference in points as it was written.

    Raises:
        UserError: See `points`.
    """
    points(str(value))
    return str(value).strip()
