"""How numbers are written: durations, bytes, counts, scores and differences, the same way in every report.

A score is shown on one of two scales. A metric whose values all lie within 0–1 (accuracy, exact match, F1, ROUGE) is
shown times 100 with one decimal; perplexities, bits, and metrics that are customarily larger (BLEU, chrF) are shown as
they are. `None` is written `-`: not applicable, or not measured.

Example:
    >>> seconds(124), seconds(0.0182), memory(8_482_560_410), file_size(40_400_000), count(10_100_000)
    ('2m 04s', '18.2 ms', '7.9 GiB', '40.4 MB', '10.1 M')
    >>> Scale.of("acc", [0.324, 0.412]).difference(0.088, 0.061, 0.115)
    '+8.8 ±2.7'
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ABSENT = "-"

MARKS = {"better": "▲", "worse": "▼", "undecided": "≈"}
"""The sign of a verdict."""

SMALLEST_PEAK_BYTES = 16 * 1024**2
"""A measured peak below this is noise: it is written `<16 MiB` and compared with nothing."""

_CUSTOMARY = ("bleu", "chrf")
_UNBOUNDED = ("loss", "_ppl", "ppl", "perplexity", "bits_per_byte", "mae", "mse")


def seconds(value: float | None) -> str:
    """A measured time: `18.2 ms`, `1.2 s`, `2m 04s`, `1h 02m`."""
    if value is None:
        return ABSENT
    if round(value, 3) < 1:
        milliseconds = value * 1000
        decimals = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 2
        return f"{milliseconds:.{decimals}f} ms"
    return f"{value:.1f} s" if round(value, 1) < 60 else clock(value)


def clock(value: float) -> str:
    """A waiting time to the second: `0m 38s`, `1h 02m`."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def memory(value: float | None) -> str:
    """Bytes in memory, in powers of 1024: `7.9 GiB`."""
    return _with_unit(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def peak(value: float | None) -> str:
    """A measured peak of memory; below `SMALLEST_PEAK_BYTES` it says no more than that."""
    return "<16 MiB" if value is not None and value < SMALLEST_PEAK_BYTES else memory(value)


def file_size(value: float | None) -> str:
    """Bytes on disk, in powers of 1000: `40.4 MB`."""
    return _with_unit(value, 1000, ("B", "kB", "MB", "GB", "TB"))


def count(value: float | None) -> str:
    """A number of parameters: `10.1 M`."""
    return _with_unit(value, 1000, ("", "k", "M", "B", "T"))


def counted(number: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "task"), counted(7, "task")
        ('1 task', '7 tasks')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _with_unit(value: float | None, base: int, units: tuple[str, ...]) -> str:
    if value is None:
        return ABSENT
    power = 0
    while abs(value) >= base * 0.9995 and power < len(units) - 1:
        value /= base
        power += 1
    number = f"{value:.0f}" if power == 0 else f"{value:.1f}"
    return f"{number} {units[power]}".rstrip()


def ratio(value: float | None) -> str:
    """A cost beside the baseline's: `1.15×`."""
    return ABSENT if value is None else f"{value:.2f}×"


def probability(value: float | None) -> str:
    """A p value: `0.032`, `<0.001`."""
    return ABSENT if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def one_line(text: str) -> str:
    """The first line of a text that others wrote, without characters that move a terminal's cursor."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "".join(character if character.isprintable() else " " for character in first).strip()


def listing(names: Iterable[str]) -> str:
    """Names as prose: `a`, `a and b`, `a, b and c`."""
    *front, last = list(names) or [""]
    return f"{', '.join(front)} and {last}" if front else last


@dataclass(frozen=True)
class Scale:
    """How the values of one metric are shown: times `factor`, with `decimals`."""

    factor: float
    decimals: int

    @classmethod
    def of(cls, metric: str, values: Iterable[float | None]) -> Scale:
        """The scale of a metric with these values (see the top of this module)."""
        known = [abs(value) for value in values if value is not None]
        largest = max(known, default=0.0)
        if metric.startswith(_CUSTOMARY):
            return cls(1, 1)
        if largest <= 1 and not metric.endswith(_UNBOUNDED):
            return cls(100, 1)
        return cls(1, 3 if largest < 10 else 2 if largest < 1000 else 1)

    @property
    def unit(self) -> str:
        """What a difference on this scale is called."""
        return "points" if self.factor == 100 else ""

    def value(self, value: float | None) -> str:
        """A score: `41.2`."""
        return ABSENT if value is None else f"{value * self.factor:.{self.decimals}f}"

    def interval(self, low: float | None, high: float | None) -> str:
        """A score's interval: `28.4–36.6`."""
        return ABSENT if low is None or high is None else f"{self.value(low)}–{self.value(high)}"

    def spread(self, value: float, deviation: float) -> str:
        """A mean and the standard deviation around it: `41.2 ±0.8`."""
        return f"{self.value(value)} ±{deviation * self.factor:.{self.decimals}f}"

    def signed(self, value: float) -> str:
        """A difference: `+8.8`; never `-0.0`."""
        text = f"{value * self.factor:+.{self.decimals}f}"
        return text if float(text) else f"+{0:.{self.decimals}f}"

    def difference(self, value: float, low: float, high: float) -> str:
        """A difference and half the width of its interval: `+8.8 ±2.7`."""
        return f"{self.signed(value)} ±{(high - low) / 2 * self.factor:.{self.decimals}f}"
