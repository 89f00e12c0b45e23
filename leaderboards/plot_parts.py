"""Parts of all plots: domains of axes, scales of verdicts, and rows as data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from harness.leaderboards.drawing import LIGHT, Spec
from harness.results import Verdict

Size = tuple[int, int]
"""Width and height in pixels, without axes."""
VERDICT_ORDER: tuple[Verdict, ...] = ("better", "undecided", "worse")


def can_be_drawn(*numbers: float | None) -> bool:
    """Whether numbers are of a size that an axis can show; a document from elsewhere may hold any."""
    return all(number is None or abs(number) < 1e15 for number in numbers)


def domain(values: Iterable[float], pad: float = 0.07, *, log: bool = False) -> list[float]:
    """The range of an axis: all values, with a margin of this share on both sides."""
    known = list(values)
    low, high = (math.log(min(known)), math.log(max(known))) if log else (min(known), max(known))
    margin = ((high - low) or abs(high) or 1) * pad
    return [float(f"{math.exp(end) if log else end:.6g}") for end in (low - margin, high + margin)]


def scaled(field: str, names: Sequence[str], values: Sequence[str]) -> Spec:
    """Returns an encoding by name, without a legend."""
    return {"field": field, "type": "nominal", "legend": None, "scale": {"domain": list(names), "range": list(values)}}


def plain(row: Any) -> Spec:
    """A row as data, with numbers of six digits."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row._asdict().items()}


def cut(name: str, most: int = 22) -> str:
    """Cuts a name for an axis."""
    return name if len(name) <= most else name[: most - 1] + "…"


def by_verdict() -> tuple[Spec, Spec]:
    """Returns the encodings of a verdict: colour and shape, so that neither is needed alone."""
    colors = [LIGHT["better"], LIGHT["muted"], LIGHT["worse"]]
    return scaled("mark", VERDICT_ORDER, colors), scaled(
        "mark", VERDICT_ORDER, ["triangle-up", "circle", "triangle-down"]
    )
