"""Plots with a row or a line for each variant: differences from the baseline, distributions of times, loss curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.leaderboards.drawing import LIGHT, Spec
from harness.leaderboards.labels import width_of
from harness.leaderboards.plot_parts import Size, by_verdict, can_be_drawn, cut, plain, scaled
from harness.results import CurvePoint, Verdict

MOST_IN_COLOUR = 4
"""Curves in colour, with their name at the end; readers cannot match a legend with more than ten lines."""
_SMOOTHING = 0.2
_MOST_POINTS = 2400
"""Points of all loss curves of a plot."""
_ROWS: Spec = {
    "field": "name", "type": "nominal", "sort": None, "title": None,
    "axis": {"domain": False, "ticks": False, "grid": False, "labelLimit": 120, "labelColor": LIGHT["ink"],
             "labelExpr": "slice(datum.label, indexof(datum.label, ' ') + 1)"},
}  # fmt: skip
"""An axis with a row for each variant; the number before a name keeps those apart that are equal when cut."""


class ForestRow(NamedTuple):
    """A difference from the baseline with its interval."""

    name: str
    value: float
    low: float
    high: float
    mark: Verdict


class SpreadRow(NamedTuple):
    """A distribution by its quantiles at 1, 25, 50, 75 and 99 %."""

    name: str
    least: float
    lower: float
    middle: float
    upper: float
    most: float


def forest(rows: Sequence[ForestRow], *, title: str, subtitle: str, width: int = 250) -> Spec:
    """Differences from the baseline on one task: shape and colour both carry the verdict."""
    y = _ROWS
    x: Spec = {"type": "quantitative", "title": None, "axis": {"tickCount": 4, "grid": False}, "scale": {"zero": True}}
    color, shape = by_verdict()
    return {
        "width": width,
        "height": {"step": 20 if len(rows) < 8 else 15},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "title": {"text": title, "subtitle": subtitle},
        "data": {"values": _numbered(rows)},
        "layer": [
            {"data": {"values": [{}]}, "mark": {"type": "rule", "color": LIGHT["muted"]}, "encoding": {"x": {"datum": 0, "type": "quantitative"}}},
            {"mark": {"type": "rule", "strokeWidth": 1.8}, "encoding": {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}, "color": color}},
            {"mark": {"type": "point", "filled": True, "size": 46, "opacity": 1}, "encoding": {"y": y, "x": x | {"field": "value"}, "color": color, "shape": shape}},
        ],
    }  # fmt: skip


def curves(lines: Sequence[tuple[str, Sequence[CurvePoint]]], strong: Sequence[str], size: Size) -> Spec:
    """Smoothed training losses: a few in colour with their names at the ends, the rest in grey.

    Args:
        lines: The curve of each training run.
        strong: The runs in colour, at most `MOST_IN_COLOUR`.
        size: Of the plot.
    """
    width, height = size[0], size[1] - 50
    strong = strong[:MOST_IN_COLOUR]
    sparse = math.ceil(sum(len(curve) for _, curve in lines) / _MOST_POINTS)
    values = [value for name, curve in lines for value in _smoothed(name, curve, name in strong, sparse)]
    losses = [value["loss"] for value in values]
    ends = sorted(
        ([value for value in values if value["name"] == name][-1] for name in strong),
        key=lambda end: float(end["loss"]),
    )
    gap, below = ((max(losses) - min(losses)) or 1) * 15 / height, -math.inf
    for end in ends:  # names one above another, never on one another
        end["label"] = below = max(end["loss"], below + gap)
    x = {
        "field": "step", "type": "quantitative", "title": "step", "axis": {"grid": False, "tickCount": 5},
        "scale": {"domain": [0, max(value["step"] for value in values)], "nice": False},
    }  # fmt: skip
    y: Spec = {
        "field": "loss", "type": "quantitative", "title": None, "scale": {"zero": False},
        "axis": {"tickCount": 5, "domain": False, "ticks": False},
    }  # fmt: skip
    color = scaled("name", strong, [LIGHT[f"c{number}"] for number, _ in enumerate(strong, 1)])
    room = 10 + max(width_of(cut(name)) for name in strong)
    return {
        "width": width - room,
        "height": height,
        "padding": {"left": 4, "top": 4, "bottom": 4, "right": 4 + room},
        "title": {"text": "training loss, smoothed"},
        "layer": [
            {"data": {"values": [value for value in values if not value["strong"]]},
             "mark": {"type": "line", "strokeWidth": 0.8, "color": LIGHT["muted"], "opacity": 0.35},
             "encoding": {"x": x, "y": y, "detail": {"field": "name"}}},
            {"data": {"values": [value for value in values if value["strong"]]},
             "mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y, "color": color}},
            {"data": {"values": [end | {"text": cut(end["name"])} for end in ends]},
             "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11.5, "fontWeight": 600, "clip": False},
             "encoding": {"x": x, "y": y | {"field": "label"}, "text": {"field": "text"}, "color": color}},
        ],
    }  # fmt: skip


def spreads(rows: Sequence[SpreadRow], title: str, unit: str, size: Size) -> Spec:
    """Distributions of measured times: the middle half as a bar, the median as a tick, 1 to 99 % as a line."""
    y = _ROWS
    x: Spec = {"type": "quantitative", "title": unit, "scale": {"zero": False}, "axis": {"tickCount": 4, "grid": False}}
    mark = {"color": LIGHT["c1"]}
    return {
        "width": size[0],
        "height": {"step": 20 if len(rows) < 8 else 15},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "title": {"text": title},
        "data": {"values": _numbered(rows)},
        "layer": [
            {"mark": {"type": "rule", **mark}, "encoding": {"y": y, "x": x | {"field": "least"}, "x2": {"field": "most"}}},
            {"mark": {"type": "bar", "height": 7, "opacity": 0.4, **mark}, "encoding": {"y": y, "x": x | {"field": "lower"}, "x2": {"field": "upper"}}},
            {"mark": {"type": "tick", "thickness": 2, "height": 11, "size": 11, **mark}, "encoding": {"y": y, "x": x | {"field": "middle"}}},
        ],
    }  # fmt: skip


def _smoothed(name: str, curve: Sequence[CurvePoint], strong: bool, sparse: int) -> list[Spec]:
    """Moving averages of a curve, without points that have no loss; of a grey one, every `sparse`-th."""
    found: list[Spec] = []
    for point in curve:
        if point.loss is not None and can_be_drawn(point.loss):
            before = found[-1]["loss"] if found else point.loss
            loss = (1 - _SMOOTHING) * before + _SMOOTHING * point.loss
            found.append({"name": name, "step": point.step, "loss": float(f"{loss:.4g}"), "strong": strong})
    return found if strong else found[::-sparse][::-1]


def _numbered(rows: Sequence[ForestRow] | Sequence[SpreadRow]) -> list[Spec]:
    found = [plain(row) for row in rows]
    return [row | {"name": f"{number} {cut(row['name'], 17)}"} for number, row in enumerate(found)]
