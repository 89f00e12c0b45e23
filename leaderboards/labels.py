"""Places names beside the marks of a plot: Vega-Lite has no placement, and that of Vega needs a browser.

Example:
    >>> [(label.name, label.align) for label in placed([Spot("lora", 50, 50)], 100, 100)]
    [('lora', 'left')]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LONGEST = 28
"""Characters of a label; longer names are cut, and whole in the tables."""
_SIZE = 11.5
_BESIDE = (
    *((8, down, "left") for down in (-9, 0, 9)),
    *((-8, down, "right") for down in (0, -9, 9)),
    (0, -13, "center"),
    (0, 13, "center"),
    *((side, down, align) for down in (-18, 18, -27, 27) for side, align in ((7, "left"), (-7, "right"))),
)
"""Where a label may be: from its mark to its middle in pixels, and the side of the text that is there."""


class Box(NamedTuple):
    """A rectangle that labels may not cover, in pixels from the top left."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether two rectangles share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: Box) -> bool:
        """Whether the other rectangle is inside this one."""
        across = self.left < other.left and other.right < self.right
        return across and self.top < other.top and other.bottom < self.bottom


class Spot(NamedTuple):
    """A mark that wants a name."""

    name: str
    x: float
    y: float
    first: bool = False
    """Whether it is named before others."""


class Label(NamedTuple):
    """A name and its place: from its mark to the middle of its height."""

    name: str
    text: str
    dx: float
    dy: float
    align: str


def placed(spots: Sequence[Spot], width: float, height: float, lines: Iterable[Box] = ()) -> list[Label]:
    """Names as many marks as there is room for, short names first; a label covers no mark, line or other label.

    Args:
        spots: The marks.
        width: Of the plot.
        height: Of the plot.
        lines: Intervals and other lines that labels may not cover.
    """
    inside = Box(-6, -4, width + 12, height + 2)
    taken = [Box(spot.x - 5, spot.y - 5, spot.x + 5, spot.y + 5) for spot in spots] + list(lines)
    found = []
    for spot in sorted(spots, key=lambda spot: (not spot.first, len(spot.name))):
        text = spot.name if len(spot.name) <= LONGEST else spot.name[: LONGEST - 1] + "…"
        for label, box in _candidates(spot, text):
            if inside.holds(box) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                found.append(label)
                break
    return found


def width_of(text: str) -> float:
    """Estimates the width of a label in pixels; characters of East Asian scripts are as wide as high."""
    return sum(_SIZE + 0.5 if ord(letter) > 0x2E80 else 0.565 * _SIZE for letter in text)


def _candidates(spot: Spot, text: str) -> Iterator[tuple[Label, Box]]:
    size = width_of(text)
    for dx, dy, align in _BESIDE:
        left = spot.x + dx - {"left": 0.0, "right": size, "center": size / 2}[align]
        yield Label(spot.name, text, dx, dy, align), Box(left, spot.y + dy - 6.5, left + size, spot.y + dy + 6.5)
