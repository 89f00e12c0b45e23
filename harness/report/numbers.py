"""Formats numbers for every report: durations, bytes, counts, scores and differences.

A score is shown on one of two scales. A metric whose values are all within 0–1 (accuracy, exact match, F1, ROUGE) is
multiplied by 100 and shown with one decimal; perplexities, bits, and metrics that are usually larger (BLEU, chrF) are
shown unchanged. `None` is shown as `-`: not applicable, or not measured.

Example:
    >>> seconds(124), seconds(0.0182), memory(8_482_560_410), file_size(40_400_000), count(10_100_000)
    ('2m 04s', '18.2 ms', '7.9 GiB', '40.4 MB', '10.1 M')
    >>> Scale.of("acc", [0.324, 0.412]).difference(0.088, 0.061, 0.115)
    '+8.8 ±2.7'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.results import Mark, Scaling, Verdict

if TYPE_CHECKING:
    from harness.stats.ratios import Ratio

ABSENT = "-"

MARKS: dict[Mark, str] = {
    "better": "▲", "worse": "▼", "better?": "△", "worse?": "▽", "undecided": "≈", "untestable": "?"
}  # fmt: skip
"""The sign of a difference."""
MARK_WORDS: dict[Mark, str] = {
    "better": "better",
    "worse": "worse",
    "better?": "better unless rare large losses hide",
    "worse?": "worse unless rare large gains hide",
    "undecided": "no difference shown",
    "untestable": "cannot be told",
}
"""A sign in words."""
VERDICTS: dict[Verdict, str] = {"better": "better", "worse": "worse", "undecided": "no difference shown"}
"""A verdict in words."""

UNEVEN = 1.1
"""An interval is shown by its two ends if one is this many times as far from the value as the other."""

SMALLEST_PEAK_BYTES = 16 * 1024**2
"""A smaller measured peak is noise: it is shown as `<16 MiB` and excluded from ratios and Pareto fronts."""

CUSTOMARY = ("bleu", "chrf")
"""Beginnings of the names of metrics that are on a scale from 0 to 100."""
_UNBOUNDED = ("loss", "_ppl", "ppl", "perplexity", "bits_per_byte", "mae", "mse")
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def seconds(value: float | None) -> str:
    """Formats a measured time: `18.2 ms`, `1.2 s`, `2m 04s`, `1h 02m`."""
    if value is None:
        return ABSENT
    if round(value, 3) < 1:
        milliseconds = value * 1000
        decimals = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 2
        return f"{milliseconds:.{decimals}f} ms"
    return f"{value:.1f} s" if round(value, 1) < 60 else clock(value)


def seconds_between(value: float, low: float, high: float) -> str:
    """Formats a measured time with its range, in the unit of the value.

    Example:
        >>> seconds_between(0.0182, 0.018, 0.0195), seconds_between(124, 100, 130)
        ('18.2 ms (18.0–19.5)', '2m 04s (1m 40s–2m 10s)')
    """
    number, _, unit = seconds(value).partition(" ")
    factor = {"ms": 1000, "s": 1}.get(unit)
    if factor is None:
        return f"{seconds(value)} ({clock(low)}–{clock(high)})"
    decimals = len(number.partition(".")[2])
    return f"{number} {unit} ({low * factor:.{decimals}f}–{high * factor:.{decimals}f})"


def between(value: float, low: float, high: float) -> str:
    """Formats a number with its range.

    Example:
        >>> between(640.4, 601.2, 702.0), between(9.44, 8, 10)
        ('640 (601–702)', '9.4 (8.0–10.0)')
    """
    decimals = 0 if value >= 100 else 1
    return f"{value:,.{decimals}f} ({low:,.{decimals}f}–{high:,.{decimals}f})"


def clock(value: float) -> str:
    """Formats a waiting time to the second: `0m 38s`, `1h 02m`."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def memory(value: float | None) -> str:
    """Formats bytes in memory, in powers of 1024: `7.9 GiB`."""
    return _with_unit(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def peak(value: float | None) -> str:
    """Formats a measured memory peak; below `SMALLEST_PEAK_BYTES` only that limit is shown."""
    return "<16 MiB" if value is not None and value < SMALLEST_PEAK_BYTES else memory(value)


def file_size(value: float | None) -> str:
    """Formats bytes on disk, in powers of 1000: `40.4 MB`."""
    return _with_unit(value, 1000, ("B", "kB", "MB", "GB", "TB"))


def count(value: float | None) -> str:
    """Formats a number of parameters: `10.1 M`."""
    return _with_unit(value, 1000, ("", "k", "M", "B", "T"))


def money(value: float | None) -> str:
    """Formats an amount of money, to two digits below 1.

    Example:
        >>> money(12.3456), money(0.00345), money(1234.5), money(0.00001)
        ('12.35', '0.0034', '1,234', '<0.0001')
    """
    if value is None:
        return ABSENT
    if value < 1:
        return "<0.0001" if 0 < value < 0.0001 else f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def counted(number: int, noun: str) -> str:
    """Formats a number with its noun.

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


def ratio(value: Ratio | None) -> str:
    """Formats a cost relative to the baseline's: `1.15×`, or its interval if that is wider than ±5 %.

    Example:
        >>> from harness.stats.ratios import Ratio
        >>> ratio(Ratio(1.15, 1.12, 1.18)), ratio(Ratio(1.15, 0.9, 1.47)), ratio(Ratio(1.15))
        ('1.15×', '0.90–1.47×', '-')
    """
    if value is None or value.low is None or value.high is None:
        return ABSENT
    return f"{value.value:.2f}×" if value.precision <= 0.05 else f"{value.low:.2f}–{value.high:.2f}×"


def probability(value: float | None) -> str:
    """Formats a p-value: `0.032`, `<0.001`."""
    return ABSENT if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def rank(best: int, worst: int) -> str:
    """Formats the ranks that a variant may have: `1`, `1–3`."""
    return f"{best}" if best == worst else f"{best}–{worst}"


def one_line(text: str) -> str:
    """Returns the first line of a foreign text, without characters that move a terminal's cursor."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "".join(character if character.isprintable() else " " for character in first).strip()


def listing(names: Iterable[str]) -> str:
    """Joins names as in a sentence: `a`, `a and b`, `a, b and c`."""
    *front, last = list(names) or [""]
    return f"{', '.join(front)} and {last}" if front else last


def a_few(names: Sequence[str], most: int = 6) -> str:
    """Joins names as in a sentence, and counts those beyond the first ones.

    Example:
        >>> a_few(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
    """
    return listing([*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])])


def dtype(name: str) -> str:
    """Shortens a dtype's name.

    Example:
        >>> dtype("torch.bfloat16"), dtype("float64")
        ('bf16', 'float64')
    """
    name = name.removeprefix("torch.")
    return _DTYPES.get(name, name)


def with_arrow(metric: str, higher_is_better: bool) -> str:
    """Adds the direction of improvement to a metric's name: `acc ↑`."""
    return f"{metric} {'↑' if higher_is_better else '↓'}"


def _kind(metric: str) -> Scaling:
    return "perplexity" if metric.endswith(("ppl", "perplexity")) else "points"


@dataclass(frozen=True)
class Scale:
    """The scale on which one metric is shown: times `factor`, with `decimals`."""

    factor: float
    decimals: int
    kind: Scaling = field(default="points", compare=False)

    @classmethod
    def of(cls, metric: str, values: Iterable[float | None], bounds: tuple[float, float] | None = None) -> Scale:
        """Chooses the scale of a metric with these values (see the top of this module).

        Args:
            metric: Its name.
            values: Its values in a run.
            bounds: Ends of its scale, if they are known.
        """
        known = [abs(value) for value in values if value is not None]
        largest, ends = max(known, default=0.0), None if bounds is None else max(map(abs, bounds))
        if metric.startswith(CUSTOMARY) or ends == 100:
            return cls(1, 1, "percent")
        if largest <= 1 and (ends == 1 or not metric.endswith(_UNBOUNDED)):
            return cls(100, 1, "fraction")
        return cls(1, 3 if largest < 10 else 2 if largest < 1000 else 1, _kind(metric))

    @classmethod
    def declared(cls, kind: Scaling, decimals: int) -> Scale:
        """Returns the scale that a document names."""
        return cls(100 if kind == "fraction" else 1, decimals, kind)

    @property
    def unit(self) -> str:
        """Unit of a difference on this scale."""
        return "points" if self.factor == 100 else ""

    def value(self, value: float | None) -> str:
        """Formats a score: `41.2`."""
        return ABSENT if value is None else f"{value * self.factor:.{self.decimals}f}"

    def interval(self, low: float | None, high: float | None) -> str:
        """Formats a score's interval: `28.4–36.6`."""
        return ABSENT if low is None or high is None else f"{self.value(low)}–{self.value(high)}"

    def spread(self, value: float, deviation: float) -> str:
        """Formats a mean and its standard deviation: `41.2 ±0.8`."""
        return f"{self.value(value)} ±{deviation * self.factor:.{self.decimals}f}"

    def signed(self, value: float) -> str:
        """Formats a difference: `+8.8`; never `-0.0`."""
        text = f"{value * self.factor:+.{self.decimals}f}"
        return text if float(text) else f"+{0:.{self.decimals}f}"

    def difference(self, value: float, low: float, high: float) -> str:
        """Formats a difference and half the width of its interval: `+8.8 ±2.7`; uneven: its ends, `+45.0 [+7.1, +68.2]`.

        The half width is shown only if it is on the same side of the difference as the ends: a difference of 3.0 with ends
        0.1 and 6.1 is not shown as `+3.0 ±3.0`.
        """
        half, sides = (high - low) / 2, sorted((value - low, high - value))
        is_even = sides[1] <= UNEVEN * sides[0] or all(
            f"{s * self.factor:.{self.decimals}f}" == self._size(half) for s in sides
        )
        shown = float(self._size(abs(value))) > float(self._size(half))
        if is_even and shown == (low > 0 or high < 0):
            return f"{self.signed(value)} ±{self._size(half)}"
        return f"{self.signed(value)} [{self.signed(low)}, {self.signed(high)}]"

    def _size(self, value: float) -> str:
        return f"{value * self.factor:.{self.decimals}f}"
