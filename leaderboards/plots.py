"""Plots of two axes as Vega-Lite specifications, made from plain rows: quality against cost, learning against forgetting.

The rows know nothing of runs, so that a board over many runs draws the same pictures. Colours are stand-ins that
`harness.leaderboards.drawing` replaces. Domains are set here, over the data, because labels are placed on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from harness.leaderboards.drawing import LIGHT, Spec
from harness.leaderboards.labels import Box, Spot, placed
from harness.leaderboards.plot_parts import Size, by_verdict, domain, plain, scaled
from harness.results import Verdict

Standing = Literal["on", "maybe", "off"]
"""Whether a variant is on a Pareto front: shown, not excluded, or excluded."""

_LOG_FROM = 12
"""Ratio of the largest to the smallest cost above which their axis is logarithmic."""
_STANDING_ORDER: tuple[Standing, ...] = ("on", "maybe", "off")


class CostPoint(NamedTuple):
    """A variant of the plot of quality against cost."""

    name: str
    cost: float
    value: float
    low: float | None
    high: float | None
    standing: Standing


class PlanePoint(NamedTuple):
    """A variant of the plot of learning against forgetting; each interval is value, low, high."""

    name: str
    kept: tuple[float, float, float]
    learned: tuple[float, float, float]
    mark: Verdict


class PlaneAxes(NamedTuple):
    """The axes of the plot of learning against forgetting."""

    zero: float
    """The baseline on both axes."""
    learned: str
    """Title of the plot, which names the vertical axis."""
    kept: str
    """Title of the horizontal axis."""
    unit: str = ""
    """Behind each number of an axis: ` %`."""


def cost_plot(points: Sequence[CostPoint], title: str, cost: str, size: Size) -> Spec:
    """Quality against cost, with intervals, the front's steps, and names where there is room."""
    width, height = size
    log = max(point.cost for point in points) > _LOG_FROM * min(point.cost for point in points) > 0
    across = domain([point.cost for point in points], 0.09, log=log)
    up = domain([end for point in points for end in (point.value, point.low, point.high) if end is not None], 0.05)
    x = {
        "field": "cost", "type": "quantitative", "title": f"{cost}{' (log)' if log else ''} → more expensive",
        "scale": {"type": "log" if log else "linear", "zero": False, "nice": False, "domain": across},
        "axis": {"grid": False, "tickCount": max(3, width // 110), **({"format": "~s"} if log else {})},
    }  # fmt: skip
    y = _upwards(up)
    color = _standing([LIGHT["c1"], LIGHT["c1"], LIGHT["muted"]])
    spots = [
        Spot(point.name, _pixel(point.cost, across, width, log=log), height - _pixel(point.value, up, height), point.standing != "off")
        for point in points
    ]  # fmt: skip
    lines = [
        Box(spot.x - 1.5, height - _pixel(point.high, up, height), spot.x + 1.5, height - _pixel(point.low, up, height))
        for spot, point in zip(spots, points, strict=True)
        if point.low is not None and point.high is not None
    ]
    values = _labelled([plain(point) for point in points], spots, width, height, lines)
    return {
        "width": width,
        "height": height,
        "title": {"text": title},
        "data": {"values": values},
        "layer": [
            {
                "transform": [{"filter": "datum.standing == 'on'"}],
                "mark": {"type": "line", "interpolate": "step-after", "strokeDash": [3, 3], "strokeWidth": 1.2, "color": LIGHT["c1"]},
                "encoding": {"x": x, "y": y},
            },
            {
                "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
                "mark": {"type": "rule", "strokeWidth": 1.2, "opacity": 0.55},
                "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": color},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 58, "opacity": 1, "strokeWidth": 1.4},
                "encoding": {"x": x, "y": y, "stroke": color, "fill": _standing([LIGHT["c1"], LIGHT["paper"], LIGHT["paper"]])},
            },
            _names(x, y),
        ],
    }  # fmt: skip


def plane(points: Sequence[PlanePoint], axes: PlaneAxes, size: Size) -> Spec:
    """Learning on tasks that variants were trained for, against changes on others, with intervals."""
    zero, learned, kept, unit = axes
    width, height = size
    across = domain([zero, *(end for point in points for end in point.kept)])
    up = domain([zero, *(end for point in points for end in point.learned)])
    suffix = {"labelExpr": f"datum.label + '{unit}'"} if unit else {}
    x = {
        "field": "x", "type": "quantitative", "title": kept, "scale": {"zero": False, "nice": False, "domain": across},
        "axis": {"grid": False, "tickCount": 5, **suffix},
    }  # fmt: skip
    y = _upwards(up, **suffix)
    color, shape = by_verdict()
    spots, lines = [], []
    for point in points:
        left, right = (_pixel(end, across, width) for end in point.kept[1:])
        top, bottom = (height - _pixel(end, up, height) for end in (point.learned[2], point.learned[1]))
        spot = Spot(
            point.name,
            _pixel(point.kept[0], across, width),
            height - _pixel(point.learned[0], up, height),
            point.mark == "better",
        )
        spots.append(spot)
        lines += [Box(left, spot.y - 1.5, right, spot.y + 1.5), Box(spot.x - 1.5, top, spot.x + 1.5, bottom)]
    values: list[Spec] = [
        {"name": point.name, "mark": point.mark, "x": point.kept[0], "x1": point.kept[1], "x2": point.kept[2],
         "y": point.learned[0], "y1": point.learned[1], "y2": point.learned[2]}
        for point in points
    ]  # fmt: skip
    rule = {"type": "rule", "color": LIGHT["line"], "strokeWidth": 1.5}
    return {
        "width": width,
        "height": height,
        "title": {"text": learned},
        "data": {"values": _labelled(values, spots, width, height, lines)},
        "layer": [
            {"data": {"values": [{}]}, "mark": rule, "encoding": {"x": {"datum": zero, "type": "quantitative"}}},
            {"data": {"values": [{}]}, "mark": rule, "encoding": {"y": {"datum": zero, "type": "quantitative"}}},
            {"mark": {"type": "rule", "opacity": 0.5}, "encoding": {"x": x | {"field": "x1"}, "x2": {"field": "x2"}, "y": y | {"field": "y"}, "color": color}},
            {"mark": {"type": "rule", "opacity": 0.5}, "encoding": {"x": x, "y": y | {"field": "y1"}, "y2": {"field": "y2"}, "color": color}},
            {"mark": {"type": "point", "filled": True, "size": 52, "opacity": 1}, "encoding": {"x": x, "y": y | {"field": "y"}, "color": color, "shape": shape}},
            _names(x, y | {"field": "y"}),
        ],
    }  # fmt: skip


def _pixel(value: float, ends: Sequence[float], size: float, *, log: bool = False) -> float:
    low, high = ends
    share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
    return share * size


def _upwards(ends: Sequence[float], **axis: Any) -> Spec:
    return {
        "field": "value", "type": "quantitative", "title": None, "scale": {"zero": False, "nice": False, "domain": ends},
        "axis": {"tickCount": 5, "domain": False, "ticks": False, **axis},
    }  # fmt: skip


def _standing(values: Sequence[str]) -> Spec:
    return scaled("standing", _STANDING_ORDER, values)


def _labelled(
    values: list[Spec], spots: Sequence[Spot], width: float, height: float, lines: Iterable[Box]
) -> list[Spec]:
    """Adds the places of labels to the rows of marks that have room for one."""
    found = {label.name: label for label in placed(spots, width, height, lines)}
    for value, spot in zip(values, spots, strict=True):
        if label := found.get(value["name"]):
            value |= {"label": label.text, "dx": label.dx, "dy": label.dy, "align": label.align, "strong": spot.first}
    return values


def _names(x: Spec, y: Spec) -> Spec:
    """The layer of labels that `_labelled` has placed."""
    color = {"condition": {"test": "datum.strong", "value": LIGHT["ink"]}, "value": LIGHT["muted"]}
    place = {name: {"expr": f"datum.{name}"} for name in ("dx", "dy", "align")}
    mark = {"type": "text", "fontSize": 11.5, "baseline": "middle", "fontWeight": {"expr": "datum.strong ? 600 : 400"}}
    return {
        "transform": [{"filter": "isValid(datum.label)"}],
        "mark": mark | place,
        "encoding": {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}, "color": color},
    }
