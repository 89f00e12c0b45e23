"""The plots of a run: which of its numbers are drawn, and what is said under them.

Example:
    >>> [figure.title for figure in run_figures(rows)]  # doctest: +SKIP
    ['Quality against cost', 'Learned against forgotten', …]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from harness.leaderboards import plots
from harness.leaderboards.drawing import Spec, drawing
from harness.leaderboards.plots import CostPoint, ForestRow, PlanePoint, Size, SpreadRow, Standing
from harness.report import numbers
from harness.report.costs import Measure, measures
from harness.report.gains import gains, trained_for
from harness.report.numbers import counted, listing
from harness.report.scores import headline_delta, scale_of, titles
from harness.report.summary import front_of
from harness.results import Gain, Run, TaskInfo, Variant, Verdict
from harness.stats.pooled import Estimate, pooled
from harness.stats.quantiles import percentile

WIDE: Size = (540, 350)
NARROW: Size = (300, 300)
"""Each plot is drawn for two widths: one that is shrunk for a telephone cannot be read."""

_SECONDS = ((180, 60, "min"), (1, 1, "s"), (0, 1e-3, "ms"))
_BYTES = ((1024**3, 1024**3, "GiB"), (1024**2, 1024**2, "MiB"), (0, 1024, "KiB"))
_COUNTS = ((1e9, 1e9, "billions"), (1e6, 1e6, "millions"), (0, 1e3, "thousands"))
_LARGEST = 1000
"""Points that can be drawn; a document from elsewhere may hold any number."""
_SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True)
class RunFigure:
    """A plot on a page."""

    title: str
    svg: Markup
    caption: str


def drawn(make: Callable[[Size], Spec], title: str, words: str = "") -> Markup:
    """Draws a plot for wide and for narrow screens."""
    return Markup("").join(
        drawing(make(size), title, words, kind) for size, kind in ((WIDE, "wide"), (NARROW, "narrow"))
    )


def unit_of(measure: Measure, values: Sequence[float]) -> tuple[float, str]:
    """Chooses the unit in which a cost is drawn: the factor and its name."""
    units: dict[Any, tuple[tuple[float, float, str], ...]] = {
        numbers.seconds: _SECONDS,
        numbers.count: _COUNTS,
        numbers.money: (),
    }
    largest = max(values, default=0.0)
    return next(
        ((factor, unit) for least, factor, unit in units.get(measure.write, _BYTES) if largest >= least), (1.0, "")
    )


def cost_measure(run: Run) -> Measure | None:
    """Chooses the cost of the first plot: the last one that is known for most variants, such as the time per token."""
    known = [
        (sum(m.comparable(v) is not None for v in run.variants), m)
        for m in measures(run)
        if m.write is not numbers.money
    ]
    most = max((count for count, _ in known), default=0)
    return next((measure for count, measure in reversed(known) if count == most), None) if most else None


def cost_axis(measure: Measure, run: Run) -> tuple[float, str]:
    """The factor of a cost axis, and its title."""
    values = [value for variant in run.variants if (value := measure.comparable(variant)) is not None]
    factor, unit = unit_of(measure, values)
    return factor, f"{measure.words}{f', {unit}' if unit else ''}"


def cost_points(run: Run, task: TaskInfo, measure: Measure) -> list[CostPoint]:
    """The variants with a score on a task's headline and a cost, with their place on the front."""
    scale, (factor, _) = scale_of(run, task.name, task.headline), cost_axis(measure, run)
    front = front_of(run, task, task.headline, measure)[1]
    found = []
    for variant in run.variants:
        score, cost = variant.headline(task), measure.comparable(variant)
        if score is not None and score.value is not None and cost is not None:
            low, high = (None if end is None else end * scale.factor for end in (score.low, score.high))
            standing: Standing = "off"
            if front and variant.name in front.on:
                standing = "on"
            elif front is None or variant.name in front.maybe:
                standing = "maybe"
            found.append(CostPoint(variant.name, cost / factor, score.value * scale.factor, low, high, standing))
    return found


def cost_figure(run: Run, task: TaskInfo, words: str) -> RunFigure | None:
    """Quality on a task against cost; None where no variant has both."""
    measure = cost_measure(run)
    points = cost_points(run, task, measure) if measure else []
    if measure is None or not points:
        return None
    title = f"{titles(run)[task.name]} {numbers.with_arrow(task.headline, task.higher_is_better(task.headline))}"
    cost = cost_axis(measure, run)[1]
    svg = drawn(
        lambda size: plots.cost_plot(points, title=title, cost=cost, size=size), f"{title} against {cost}", words
    )
    named = {point.name for point in points}
    absent = [variant.name for variant in run.variants if variant.name not in named]
    caption = (
        "Filled: shown to be better than every variant that is not more expensive. Blue ring: none of these is shown to be"
        " better. Grey: one is. Lines are 95 % intervals. A name without room is left out; the tables have all."
    )
    if absent:
        caption += f" Not shown, because a number is missing: {_some(absent)}."
    return RunFigure("Quality against cost", svg, caption)


def plane_figure(run: Run) -> RunFigure | None:
    """Learning against forgetting; None if no variant was scored on tasks of both kinds."""
    found = [(gain, run.variant(gain.variant)) for gain in gains(run)]
    sides = {
        gain.variant: _shares(run, gain, variant) for gain, variant in found if gain.learned() or gain.trained.means
    }
    both = {name: pair for name, pair in sides.items() if all(pair)}
    shares = bool(both) and len(both) == len(
        [1 for gain, v in found if v.train and gain.trained.means and gain.other.means]
    )
    points = []
    for gain, _ in found:
        pair = both.get(gain.variant) if shares else _changes(gain)
        if pair and pair[0] and pair[1]:
            points.append(PlanePoint(gain.variant, pair[0], pair[1], mark_of(gain)))
    if not points:
        return None
    base = run.baseline
    learned, kept, unit, zero = (
        (f"trained tasks: samples won against {_short(base)} ↑ learned", "other tasks: samples won → kept", " %", 50.0)
        if shares
        else ("trained tasks: points gained ↑ learned", "other tasks: points gained → kept", "", 0.0)
    )
    svg = drawn(
        lambda size: plots.plane(points, zero=zero, learned=learned, kept=kept, unit=unit, size=size),
        "Learned against forgotten",
        f"{counted(len(points), 'variant')}; the quality table has the numbers",
    )
    caption = (
        f"{base} is at {'50 %' if shares else '0'} on both axes. Up: better on tasks that the variant was trained for. Left: worse"
        f" on others. {'Means over tasks; samples scored alike count half.' if shares else 'Mean differences over tasks in points.'}"
        f" ▲ shown better than {base} on a trained task and worse on none, ▼ shown worse on a task, ● neither."
    )
    absent = [gain.variant for gain, _ in found if gain.variant not in {point.name for point in points}]
    if absent:
        caption += f" Not in the plot, because tasks of one kind are missing or it was not trained: {_some(absent)}."
    return RunFigure("Learned against forgotten", svg, caption)


def mark_of(gain: Gain) -> Verdict:
    """The verdicts of a variant in one mark: worse on any task, else better on a task that it was trained for."""
    if gain.trained.worse or gain.other.worse:
        return "worse"
    return "better" if gain.trained.better else "undecided"


WithInterval = tuple[float, float, float]
"""A number with the ends of its interval."""


def _shares(run: Run, gain: Gain, variant: Variant) -> tuple[WithInterval | None, WithInterval | None]:
    """Mean shares of samples won, in percent, on other tasks and on trained ones; None where a task has none."""
    mine = trained_for(run, variant)
    parts: tuple[list[Estimate | None], list[Estimate | None]] = ([], [])
    sources: tuple[list[str], list[str]] = ([], [])
    for task in run.tasks:
        delta = headline_delta(variant, task)
        if delta is None:
            continue
        side = int(task.name in mine)
        known = delta.win_rate is not None and delta.win_rate_low is not None and delta.win_rate_high is not None
        parts[side].append(
            Estimate(delta.win_rate, delta.win_rate_low, delta.win_rate_high).scaled(100) if known else None  # type: ignore[arg-type]
        )
        sources[side].append(task.data or task.name)
    found: list[WithInterval | None] = []
    for each, source in zip(parts, sources, strict=True):
        whole = [part for part in each if part is not None]
        mean = pooled(whole, source) if whole and len(whole) == len(each) else None
        found.append(None if mean is None else (mean.value, max(0.0, mean.low), min(100.0, mean.high)))
    return found[0], found[1]


def _changes(gain: Gain) -> tuple[WithInterval | None, WithInterval | None]:
    """Mean changes in points on other tasks and on trained ones, for documents without the shares of all tasks."""
    spans: list[WithInterval | None] = []
    for change in (gain.kept(), gain.learned()):
        if change is None or any(
            end is not None and abs(end) > _LARGEST for end in (change.value, change.low, change.high)
        ):
            spans.append(None)
            continue
        low, high = (change.value if end is None else end for end in (change.low, change.high))
        spans.append((change.value, low, high))
    return spans[0], spans[1]


def forest_figures(run: Run, most: int) -> list[Markup]:
    """Differences from the baseline, one plot for each of the first tasks: those that were trained for come first."""
    found = []
    for task in sorted(run.tasks, key=lambda task: not task.trained_on)[:most]:
        scale = scale_of(run, task.name, task.headline)
        rows = [
            ForestRow(
                name=variant.name,
                value=delta.value * scale.factor,
                low=delta.low * scale.factor,
                high=delta.high * scale.factor,
                mark=delta.verdict or "undecided",
            )
            for variant in run.variants
            if (delta := headline_delta(variant, task))
        ]
        if rows:
            title = f"{titles(run)[task.name]} {'↑' if task.higher_is_better(task.headline) else '↓'}"
            subtitle = f"{task.headline}, difference from {_short(run.baseline)}"
            words = ", ".join(f"{row.name} {numbers.VERDICTS[row.mark]}" for row in rows)
            found.append(drawing(plots.forest(rows, title=title, subtitle=subtitle), f"{title} {subtitle}", words))
    return found


def curve_figure(run: Run, first: Sequence[str]) -> RunFigure | None:
    """Loss curves of all training runs; those named first are in colour. None for documents of earlier versions."""
    lines = [
        (v.name, v.train.curve_points)
        for v in run.variants
        if v.train and any(p.loss is not None for p in v.train.curve_points)
    ]
    if not lines:
        return None
    names = [name for name, _ in lines]
    strong = list(dict.fromkeys([*(name for name in first if name in names), *names]))[: plots.MOST_IN_COLOUR]
    svg = drawn(
        lambda size: plots.curves(lines, strong=strong, size=(size[0], size[1] - 50)), "Training loss", listing(strong)
    )
    notes = [f"{v.name}: {numbers.one_line(v.train.curve)}" for v in run.variants if v.train]
    grey = len(lines) - len(strong)
    return RunFigure(
        "Loss curves",
        svg,
        f"{'; '.join(notes)}." + (f" Grey: {counted(grey, 'further training run')}." if grey else ""),
    )


def spread_figure(run: Run) -> RunFigure | None:
    """Distributions of the measured seconds per token; None where no text was generated."""
    known: dict[str, Sequence[float]] = {}
    for variant in run.variants:
        if (timed := variant.inference) is None:
            continue
        if seconds := timed.raw_summary.get("decode") or timed.raw_seconds.get("decode"):
            known[variant.name] = seconds
    if not known:
        return None
    longest = max(percentile(seconds, _SHARES[-1]) for seconds in known.values())
    factor, unit = next((factor, unit) for least, factor, unit in _SECONDS if longest >= least)
    rows = [
        SpreadRow(name, *(percentile(seconds, share) / factor for share in _SHARES)) for name, seconds in known.items()
    ]
    svg = Markup("").join(
        drawing(
            plots.spreads(rows, title="time per new token", unit=unit, width=size[0]),
            "Measured times per new token",
            "",
            kind,
        )
        for size, kind in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return RunFigure("Measured times", svg, "Tick: median. Bar: middle half. Line: 1 to 99 % of the single tokens.")


def _some(names: Sequence[str], most: int = 6) -> str:
    return listing([*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])])


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"
