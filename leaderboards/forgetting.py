"""The plot of learning against forgetting: each variant's gain on the tasks that it was trained for, and its change on others.

It is static SVG, drawn for two widths, and a table. Colours are variables of the page, so one drawing serves light, dark and
print; every colour also has a shape.

Example:
    >>> figure = forgetting(run)  # doctest: +SKIP
    >>> figure.marks["lora"]  # doctest: +SKIP
    'better'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
Shown = Literal["better", "worse", "undecided"]
_SHAPES: dict[Shown, str] = {
    "better": "M0-6L5.5 4.5H-5.5Z",
    "worse": "M0 6L5.5-4.5H-5.5Z",
    "undecided": "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z",
}
_MARK_WORDS: dict[Shown, str] = {
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


class PlottedVariant(NamedTuple):
    """A variant on the plot, in points."""

    name: str
    kept: Change
    learned: Change
    mark: Shown


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
    marks: dict[str, Shown]
    notes: list[str]


def forgetting(run: Run) -> Forgetting | None:
    """Draws learning against forgetting; None if no variant was scored on tasks of both kinds.

    Args:
        run: The run.
    """
    found = gains(run)
    points = [
        PlottedVariant(gain.variant, kept, learned, _mark(gain))
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


def _mark(gain: Gain) -> Shown:
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


def _drawing(points: Sequence[PlottedVariant], base: str, width: int, height: int) -> Markup:
    x = _axis((point.kept for point in points), _LEFT, width - _RIGHT)
    y = _axis((point.learned for point in points), height - _BOTTOM, _TOP)
    places: list[tuple[str, float, float, Shown | None]] = [
        (printable(point.name), x(point.kept.value), y(point.learned.value), point.mark) for point in points
    ]
    places.append((base, x(0), y(0), None))  # the last one to get a label: others may take its room
    lines = [line for point in points for line in _intervals(point, x, y)]
    taken = [Box(left - 6, top - 6, left + 6, top + 6) for _, left, top, _ in places]
    taken += [Box(min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1) for x1, x2, y1, y2 in lines]
    opening = Markup('<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">').format(
        w=width,
        h=height,
        label=f"Learned against forgotten: {counted(len(points), 'variant')}. A table has the numbers.",
    )
    parts = [opening, *_frame(x, y), *(_line("interval", *line) for line in lines)]
    parts += [_mark_at(*place) for place in places]
    parts += _labels(places, taken, Box(_LEFT, _TOP - 6, width, height - _BOTTOM))
    return Markup("").join([*parts, Markup("</svg>")])


def _frame(x: _Axis, y: _Axis) -> list[Markup]:
    """Draws the grid, the lines of no change, and the names of the axes."""
    grid = [_line("grid", x(value), x(value), y.end, y.start) for value in x.ticks(44)]
    grid += [_line("grid", x.start, x.end, y(value), y(value)) for value in y.ticks(40)]
    numbers = [_text("number", x(value), y.start + 16, "middle", _signed(value)) for value in x.ticks(44)]
    numbers += [_text("number", x.start - 7, y(value) + 4, "end", _signed(value)) for value in y.ticks(40)]
    return [
        *grid,
        *numbers,
        _line("zero", x(0), x(0), y.end, y.start),
        _line("zero", x.start, x.end, y(0), y(0)),
        _text("axis", 4, 14, "start", "↑ learned: points on trained tasks"),
        _text("axis", x.start, y.start + 38, "start", "← forgot: points on other tasks"),
    ]


def _intervals(point: PlottedVariant, x: _Axis, y: _Axis) -> Iterator[tuple[float, float, float, float]]:
    """Yields the ends of its lines: x1, x2, y1, y2."""
    left, top = x(point.kept.value), y(point.learned.value)
    if point.kept.low is not None and point.kept.high is not None:
        yield x(point.kept.low), x(point.kept.high), top, top
    if point.learned.low is not None and point.learned.high is not None:
        yield left, left, y(point.learned.low), y(point.learned.high)


def _mark_at(name: str, left: float, top: float, mark: Shown | None) -> Markup:
    """Draws the mark of a variant; None: of the baseline."""
    kind, shape, said = (
        ("base", "M-4 0H4M0-4V4", "no change") if mark is None else (mark, _SHAPES[mark], _MARK_WORDS[mark])
    )
    return Markup(
        '<path class="mark {}" transform="translate({:.1f} {:.1f})" d="{}"><title>{}: {}</title></path>'
    ).format(kind, left, top, shape, name, said)


def _labels(
    places: Sequence[tuple[str, float, float, Shown | None]], taken: Sequence[Box], inside: Box
) -> list[Markup]:
    """Names the marks, as long as there is room; the lines of no change are covered only if need be."""
    found, used = [], list(taken)
    origin = Box(places[-1][1] - 1, places[-1][2] - 1, places[-1][1] + 1, places[-1][2] + 1)
    zeros = [
        origin._replace(top=inside.top, bottom=inside.bottom),
        origin._replace(left=inside.left, right=inside.right),
    ]
    for name, left, top, _ in places:
        label = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
        place = _place(label, left, top, [*used, *zeros], inside) or _place(label, left, top, used, inside)
        if place is not None:
            used.append(place[2])
            found.append(_text("label", place[0], place[1], "start", label))
    return found


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


def _signed(value: float) -> str:
    return f"{value:+g}".replace("-", "−") if value else "0"


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(kind, x1, x2, y1, y2)


def _text(kind: str, x: float, y: float, anchor: str, words: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, words)
