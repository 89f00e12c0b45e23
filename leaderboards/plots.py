"""Every plot as a Vega-Lite specification, made from plain rows: the one place where pictures are described.

The rows know nothing of runs, so that a board over many runs draws the same pictures. Colours are stand-ins that
`harness.leaderboards.drawing` replaces. Domains are set here, over the data, because labels are placed on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from harness.leaderboards.drawing import LIGHT, Spec
from harness.leaderboards.labels import Box, Spot, placed, width_of
from harness.results import CurvePoint, Verdict

Size = tuple[int, int]
"""Width and height in pixels, without axes."""
Standing = Literal["on", "maybe", "off"]
"""Whether a variant is on a Pareto front: shown, not excluded, or excluded."""

MOST_IN_COLOUR = 4
"""Curves in colour, with their name at the end; readers cannot match a legend with more than ten lines."""
_LOG_FROM = 12
"""Ratio of the largest to the smallest cost above which their axis is logarithmic."""
_SMOOTHING = 0.2
_MOST_POINTS = 2400
"""Points of all loss curves of a plot."""
_STANDING_ORDER: tuple[Standing, ...] = ("on", "maybe", "off")
_ROWS: Spec = {
    "field": "name", "type": "nominal", "sort": None, "title": None,
    "axis": {"domain": False, "ticks": False, "grid": False, "labelLimit": 120, "labelColor": LIGHT["ink"],
             "labelExpr": "slice(datum.label, indexof(datum.label, ' ') + 1)"},
}  # fmt: skip
"""An axis with a row for each variant; the number before a name keeps those apart that are equal when cut."""
_VERDICT_ORDER: tuple[Verdict, ...] = ("better", "undecided", "worse")


class CostPoint(NamedTuple):
    """A variant of the plot of quality against cost."""

    name: str
    cost: float
    value: float
    low: float | None
    high: float | None
    standing: Standing


class ForestRow(NamedTuple):
    """A difference from the baseline with its interval."""

    name: str
    value: float
    low: float
    high: float
    mark: Verdict


class PlanePoint(NamedTuple):
    """A variant of the plot of learning against forgetting; each interval is value, low, high."""

    name: str
    kept: tuple[float, float, float]
    learned: tuple[float, float, float]
    mark: Verdict


class SpreadRow(NamedTuple):
    """A distribution by its quantiles at 1, 25, 50, 75 and 99 %."""

    name: str
    least: float
    lower: float
    middle: float
    upper: float
    most: float


def cost_plot(points: Sequence[CostPoint], *, title: str, cost: str, size: Size) -> Spec:
    """Quality against cost, with intervals, the front's steps, and names where there is room."""
    width, height = size
    log = max(point.cost for point in points) > _LOG_FROM * min(point.cost for point in points) > 0
    across = domain([point.cost for point in points], 0.09, log=log)
    up = domain([end for point in points for end in (point.value, point.low, point.high) if end is not None], 0.05)
    x = {
        "field": "cost", "type": "quantitative", "title": f"{cost}{' (log)' if log else ''} → more expensive",
        "scale": {"type": "log" if log else "linear", "zero": False, "nice": False, "domain": across},
        "axis": {"grid": False, "tickCount": max(3, width // 110), "format": "~s" if log else ""},
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
    values = _labelled([_plain(point) for point in points], spots, width, height, lines)
    return {
        "width": width,
        "height": height,
        "title": {"text": title},
        "data": {"name": "points", "values": values},
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


def forest(rows: Sequence[ForestRow], *, title: str, subtitle: str, width: int = 250) -> Spec:
    """Differences from the baseline on one task: shape and colour both carry the verdict."""
    y = _ROWS
    x: Spec = {"type": "quantitative", "title": None, "axis": {"tickCount": 4, "grid": False}, "scale": {"zero": True}}
    color = _scaled("mark", _VERDICT_ORDER, [LIGHT["better"], LIGHT["muted"], LIGHT["worse"]])
    shape = _scaled("mark", _VERDICT_ORDER, ["triangle-up", "circle", "triangle-down"])
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


def plane(points: Sequence[PlanePoint], *, zero: float, learned: str, kept: str, unit: str, size: Size) -> Spec:
    """Learning on tasks that variants were trained for, against changes on others, with intervals.

    Args:
        points: The variants.
        zero: The baseline on both axes.
        learned: Title of the plot, which names the vertical axis.
        kept: Title of the horizontal axis.
        unit: Behind each number of an axis: ` %`, or nothing.
        size: Of the plot.
    """
    width, height = size
    across = domain([zero, *(end for point in points for end in point.kept)])
    up = domain([zero, *(end for point in points for end in point.learned)])
    suffix = {"labelExpr": f"datum.label + '{unit}'"} if unit else {}
    x = {
        "field": "x", "type": "quantitative", "title": kept, "scale": {"zero": False, "nice": False, "domain": across},
        "axis": {"grid": False, "tickCount": 5, **suffix},
    }  # fmt: skip
    y = _upwards(up, **suffix)
    color = _scaled("mark", _VERDICT_ORDER, [LIGHT["better"], LIGHT["muted"], LIGHT["worse"]])
    shape = _scaled("mark", _VERDICT_ORDER, ["triangle-up", "circle", "triangle-down"])
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


def curves(lines: Sequence[tuple[str, Sequence[CurvePoint]]], *, strong: Sequence[str], size: Size) -> Spec:
    """Smoothed training losses: a few in colour with their names at the ends, the rest in grey.

    Args:
        lines: The curve of each training run.
        strong: The runs in colour, at most `MOST_IN_COLOUR`.
        size: Of the plot.
    """
    width, height = size
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
    color = _scaled("name", strong, [LIGHT[f"c{number}"] for number, _ in enumerate(strong, 1)])
    room = 10 + max(width_of(_cut(name)) for name in strong)
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
            {"data": {"values": [end | {"text": _cut(end["name"])} for end in ends]},
             "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11.5, "fontWeight": 600, "clip": False},
             "encoding": {"x": x, "y": y | {"field": "label"}, "text": {"field": "text"}, "color": color}},
        ],
    }  # fmt: skip


def spreads(rows: Sequence[SpreadRow], *, title: str, unit: str, width: int) -> Spec:
    """Distributions of measured times: the middle half as a bar, the median as a tick, 1 to 99 % as a line."""
    y = _ROWS
    x: Spec = {"type": "quantitative", "title": unit, "scale": {"zero": False}, "axis": {"tickCount": 4, "grid": False}}
    mark = {"color": LIGHT["c1"]}
    return {
        "width": width,
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


def domain(values: Iterable[float], pad: float = 0.07, *, log: bool = False) -> list[float]:
    """The range of an axis: all values, with a margin of this share on both sides."""
    known = list(values)
    low, high = (math.log(min(known)), math.log(max(known))) if log else (min(known), max(known))
    margin = ((high - low) or abs(high) or 1) * pad
    return [float(f"{math.exp(end) if log else end:.6g}") for end in (low - margin, high + margin)]


def _pixel(value: float, ends: Sequence[float], size: float, *, log: bool = False) -> float:
    low, high = ends
    share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
    return share * size


def _upwards(ends: Sequence[float], **axis: Any) -> Spec:
    return {
        "field": "value", "type": "quantitative", "title": None, "scale": {"zero": False, "nice": False, "domain": ends},
        "axis": {"tickCount": 5, "domain": False, "ticks": False, **axis},
    }  # fmt: skip


def _scaled(field: str, names: Sequence[str], values: Sequence[str]) -> Spec:
    return {"field": field, "type": "nominal", "legend": None, "scale": {"domain": list(names), "range": list(values)}}


def _standing(values: Sequence[str]) -> Spec:
    return _scaled("standing", _STANDING_ORDER, values)


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


def _smoothed(name: str, curve: Sequence[CurvePoint], strong: bool, sparse: int) -> list[Spec]:
    """Moving averages of a curve, without points that have no loss; of a grey one, every `sparse`-th."""
    found: list[Spec] = []
    for point in curve:
        if point.loss is not None:
            before = found[-1]["loss"] if found else point.loss
            loss = (1 - _SMOOTHING) * before + _SMOOTHING * point.loss
            found.append({"name": name, "step": point.step, "loss": float(f"{loss:.4g}"), "strong": strong})
    return found if strong else found[::-sparse][::-1]


def _numbered(rows: Sequence[ForestRow] | Sequence[SpreadRow]) -> list[Spec]:
    plain = [_plain(row) for row in rows]
    return [row | {"name": f"{number} {_cut(row['name'], 17)}"} for number, row in enumerate(plain)]


def _plain(row: Any) -> Spec:
    """A row as data, with numbers of six digits."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row._asdict().items()}


def _cut(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
