"""The plot of learning against forgetting: each variant's gain on the tasks that it was trained for, and its change on others.

It is static SVG, drawn for two widths, and a table. Colours are variables of the page, so one drawing serves light, dark and
print; every colour also has a shape.

Example:
    >>> figure = forgetting(run)  # doctest: +SKIP
    >>> figure.marks["lora"]
    'better'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from markupsafe import Markup

from harness.errors import printable
from harness.report.gains import gains
from harness.report.numbers import counted, listing
from harness.report.scores import titles
from harness.report.summary import change_words
from harness.results import Change, Changes, Gain, Run

WIDTHS = {"wide": (560, 380), "narrow": (330, 320)}
"""Class on the page, and size in pixels: a wide drawing that is shrunk for a telephone cannot be read."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 28, 46
_LONGEST = 28
"""Characters of a label; longer names are cut, and whole in the table."""
_FONT = 12
_LARGEST = 1000
"""Points that can be drawn."""
Mark = Literal["better", "worse", "undecided"]
_SHAPES: dict[Mark, str] = {
    "better": "M0-6L5.5 4.5H-5.5Z",
    "worse": "M0 6L5.5-4.5H-5.5Z",
    "undecided": "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z",
}
_MARK_WORDS: dict[Mark, str] = {
    "better": "▲ better on a trained task",
    "worse": "▼ worse on a task",
    "undecided": "○ nothing shown",
}
_SIDES = (
    *((9, down, 0.0) for down in (-8, 4, 16)),
    *((-9, down, 1.0) for down in (4, -8, 16)),
    (0, -11, 0.5),
    (0, 20, 0.5),
    *((side, down, share) for down in (-21, 29, -34, 42) for side, share in ((5, 0.0), (-5, 1.0))),
)
"""Where a label may be: from its mark to its baseline in pixels, and the part of its width that is left of that."""


class Point(NamedTuple):
    """A variant on the plot, in points."""

    name: str
    kept: Change
    learned: Change
    mark: Mark


class Box(NamedTuple):
    """A rectangle that labels may not cover, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether two rectangles share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True)
class Forgetting:
    """The plot and its table, ready for the page."""

    drawings: dict[str, Markup]
    """SVG by class on the page."""
    rows: list[tuple[str, str, str, str]]
    """Variant, gain on trained tasks, change on other tasks, and the mark in words."""
    marks: dict[str, Mark]
    notes: list[str]


def forgetting(run: Run) -> Forgetting | None:
    """Draws learning against forgetting; None if no variant was scored on tasks of both kinds.

    Args:
        run: The run.
    """
    found = gains(run)
    points = [
        Point(gain.variant, kept, learned, _mark(gain))
        for gain in found
        if (learned := gain.learned()) and (kept := gain.kept()) and _can_be_drawn(learned) and _can_be_drawn(kept)
    ]
    if not points:
        return None
    drawn = {point.name for point in points}
    drawings = {name: _drawing(points, printable(run.baseline), *size) for name, size in WIDTHS.items()}
    notes = _notes(run, found, drawn)
    if any(drawing.count('class="label"') <= len(points) for drawing in drawings.values()):  # those and the baseline's
        notes.append("A mark without a name has no room for it: point at it, or see the numbers.")
    return Forgetting(
        drawings=drawings,
        rows=[
            (gain.variant, _words(run, gain.trained), _words(run, gain.other), _MARK_WORDS[_mark(gain)])
            for gain in found
            if gain.variant in drawn
        ],
        marks={point.name: point.mark for point in points},
        notes=notes,
    )


def _can_be_drawn(change: Change) -> bool:
    """Whether numbers are of the size of points; a document from elsewhere may hold any."""
    return all(limit is None or abs(limit) <= _LARGEST for limit in (change.value, change.low, change.high))


def _mark(gain: Gain) -> Mark:
    """The verdicts of a variant in one mark: worse on any task, else better on a task that it was trained for."""
    if gain.trained.worse or gain.other.worse:
        return "worse"
    return "better" if gain.trained.better else "undecided"


def _words(run: Run, changes: Changes) -> str:
    return ", ".join(change_words(run, mean) for mean in changes.means)


def _notes(run: Run, found: Sequence[Gain], drawn: set[str]) -> list[str]:
    base = printable(run.baseline)
    notes = [
        f"Mean differences from {base} in points, with unadjusted 95 % intervals. ▲ shown better than {base} on a task that it"
        " was trained for, and worse on none; ▼ shown worse on at least one task; ○ neither was shown."
    ]
    other = {
        f"{titles(run)[task]} ({mean.unit})"
        for gain in found
        for mean in (*gain.trained.means, *gain.other.means)
        if mean.unit != "points"
        for task in mean.tasks
    }
    if other:
        notes.append(f"Not in points, so part of the marks and of the table only: {listing(sorted(other))}.")
    absent = [gain.variant for gain in found if gain.variant not in drawn]
    if absent:
        notes.append(
            f"Not in the plot, because tasks of one kind are missing or it was not trained: {listing(absent)}."
        )
    return notes


class _Axis(NamedTuple):
    """A linear scale from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, apart: float) -> list[float]:
        """Round values that are at least `apart` pixels apart."""
        least = (self.high - self.low) * apart / abs(self.end - self.start)
        power = 10.0 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
        return [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _axis(changes: Iterable[Change], start: float, end: float) -> _Axis:
    """A scale that holds 0 and all intervals, with a margin."""
    values = [0.0]
    for change in changes:
        values += [change.value, *(limit for limit in (change.low, change.high) if limit is not None)]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 1.0
    return _Axis(low - margin, high + margin, start, end)


def _drawing(points: Sequence[Point], base: str, width: int, height: int) -> Markup:
    x = _axis((point.kept for point in points), _LEFT, width - _RIGHT)
    y = _axis((point.learned for point in points), height - _BOTTOM, _TOP)
    parts = [
        Markup('<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">').format(
            w=width,
            h=height,
            label=f"Learned against forgotten: {counted(len(points), 'variant')}. The table has the numbers.",
        )
    ]
    for value in x.ticks(44):
        parts.append(
            _tick(x(value), x(value), _TOP, height - _BOTTOM, value, x(value), height - _BOTTOM + 16, "middle")
        )
    for value in y.ticks(40):
        parts.append(_tick(_LEFT, width - _RIGHT, y(value), y(value), value, _LEFT - 7, y(value) + 4, "end"))
    parts.append(_line("zero", x(0), x(0), _TOP, height - _BOTTOM))
    parts.append(_line("zero", _LEFT, width - _RIGHT, y(0), y(0)))
    parts.append(_text("axis", 4, 14, "start", "↑ learned: points on trained tasks"))
    parts.append(_text("axis", _LEFT, height - 8, "start", "← forgot: points on other tasks"))
    taken = [Box(x(0) - 6, y(0) - 6, x(0) + 6, y(0) + 6)]
    for point in points:
        px, py = x(point.kept.value), y(point.learned.value)
        taken.append(Box(px - 6, py - 6, px + 6, py + 6))
        for change, ends in ((point.kept, _ends(point.kept, x)), (point.learned, _ends(point.learned, y))):
            if ends is not None:
                first, last = ends
                box = (first, last, py, py) if change is point.kept else (px, px, first, last)
                parts.append(_line("interval", *box))
                taken.append(Box(min(box[:2]) - 1, min(box[2:]) - 1, max(box[:2]) + 1, max(box[2:]) + 1))
    inside = Box(_LEFT, _TOP - 6, width, height - _BOTTOM)
    zeros = [Box(x(0) - 1, inside.top, x(0) + 1, inside.bottom), Box(inside.left, y(0) - 1, inside.right, y(0) + 1)]
    marks, labels = [], []
    for point in (*points, None):  # the baseline last: others may take its place
        px, py = (x(0), y(0)) if point is None else (x(point.kept.value), y(point.learned.value))
        name = base if point is None else printable(point.name)
        shape = "M-4 0H4M0-4V4" if point is None else _SHAPES[point.mark]
        said = f"{name}: no change" if point is None else f"{name}: {_MARK_WORDS[point.mark]}"
        marks.append(
            Markup(
                '<path class="mark {kind}" transform="translate({x:.1f} {y:.1f})" d="{d}"><title>{said}</title></path>'
            ).format(kind="base" if point is None else point.mark, x=px, y=py, d=shape, said=said)
        )
        label = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
        place = _place(label, px, py, [*taken, *zeros], inside) or _place(label, px, py, taken, inside)
        if place is not None:
            left, baseline, box = place
            taken.append(box)
            labels.append(_text("label", left, baseline, "start", label))
    return Markup("").join([*parts, *marks, *labels, Markup("</svg>")])


def _place(label: str, x: float, y: float, taken: Sequence[Box], inside: Box) -> tuple[float, float, Box] | None:
    """Finds a place for a label beside its mark that covers nothing; None if there is none, and the label is left out."""
    width = sum(_FONT if ord(letter) > 0x2E80 else 0.58 * _FONT for letter in label)
    for right, down, share in _SIDES:
        left, baseline = x + right - share * width, y + down
        box = Box(left, baseline - 10, left + width, baseline + 3)
        fits = (
            inside.left <= box.left
            and box.right <= inside.right
            and inside.top <= box.top
            and box.bottom <= inside.bottom
        )
        if fits and not any(box.overlaps(other) for other in taken):
            return left, baseline, box
    return None


def _ends(change: Change, axis: _Axis) -> tuple[float, float] | None:
    return None if change.low is None or change.high is None else (axis(change.low), axis(change.high))


def _tick(x1: float, x2: float, y1: float, y2: float, value: float, x: float, y: float, anchor: str) -> Markup:
    number = f"{value:+g}".replace("-", "−") if value else "0"
    return _line("grid", x1, x2, y1, y2) + _text("number", x, y, anchor, number)


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(kind, x1, x2, y1, y2)


def _text(kind: str, x: float, y: float, anchor: str, words: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, words)
