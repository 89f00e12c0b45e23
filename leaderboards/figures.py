"""The plots of a run: which of its numbers are drawn, and what is said under them.

Example:
    >>> [figure.title for figure in run_figures(rows)]  # doctest: +SKIP
    ['Quality against cost', 'Learned against forgotten', …]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from markupsafe import Markup

from harness.leaderboards import plots, row_plots
from harness.leaderboards.drawing import Spec, drawing
from harness.leaderboards.plot_parts import Size, can_be_drawn
from harness.leaderboards.plots import CostPoint, Standing
from harness.leaderboards.row_plots import ForestRow, SpreadRow
from harness.report import numbers
from harness.report.costs import Measure, measures
from harness.report.numbers import counted, listing
from harness.report.scores import headline_delta, scale_of, titles
from harness.report.summary import front_of
from harness.results import Run, TaskInfo
from harness.stats.quantiles import percentile

WIDE: Size = (540, 350)
NARROW: Size = (300, 300)
"""Each plot is drawn for two widths: one that is shrunk for a telephone cannot be read."""

_SECONDS = ((180, 60, "min"), (1, 1, "s"), (0, 1e-3, "ms"))
_BYTES = ((1024**3, 1024**3, "GiB"), (1024**2, 1024**2, "MiB"), (0, 1024, "KiB"))
_COUNTS = ((1e9, 1e9, "billions"), (1e6, 1e6, "millions"), (0, 1e3, "thousands"))
_SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True)
class RunFigure:
    """A plot of a run."""

    title: str
    make: Callable[[Size], Spec]
    """Makes its specification for a size."""
    label: str
    """Name for screen readers."""
    words: str
    """A description for screen readers."""
    caption: str

    @cached_property
    def svg(self) -> Markup:
        """The plot for a page, drawn for wide and for narrow screens."""
        sizes = ((WIDE, "wide"), (NARROW, "narrow"))
        return Markup("").join(drawing(self.make(size), self.label, self.words, kind) for size, kind in sizes)


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
            point = CostPoint(variant.name, cost / factor, score.value * scale.factor, low, high, standing)
            if can_be_drawn(*point[1:5]):
                found.append(point)
    return found


def cost_figure(run: Run, task: TaskInfo, words: str) -> RunFigure | None:
    """Quality on a task against cost; None where no variant has both."""
    measure = cost_measure(run)
    points = cost_points(run, task, measure) if measure else []
    if measure is None or not points:
        return None
    title = f"{titles(run)[task.name]} {numbers.with_arrow(task.headline, task.higher_is_better(task.headline))}"
    cost = cost_axis(measure, run)[1]
    make = partial(plots.cost_plot, points, title, cost)
    named = {point.name for point in points}
    absent = [variant.name for variant in run.variants if variant.name not in named]
    caption = (
        "Filled: shown to be better than every variant that is not more expensive. Blue ring: none of these is shown to be"
        " better. Grey: one is. Lines are 95 % intervals. A name without room is left out; the tables have all."
    )
    if absent:
        caption += f" Not shown, because a number is missing: {numbers.a_few(absent)}."
    return RunFigure("Quality against cost", make, f"{title} against {cost}", words, caption)


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
        rows = [row for row in rows if can_be_drawn(*row[1:4])]
        if rows:
            title = f"{titles(run)[task.name]} {'↑' if task.higher_is_better(task.headline) else '↓'}"
            subtitle = f"{task.headline}, difference from {short_name(run.baseline)}"
            words = ", ".join(f"{row.name} {numbers.VERDICTS[row.mark]}" for row in rows)
            found.append(drawing(row_plots.forest(rows, title=title, subtitle=subtitle), f"{title} {subtitle}", words))
    return found


def curve_figure(run: Run, first: Sequence[str]) -> RunFigure | None:
    """Loss curves of all training runs; those named first are in colour. None for documents of earlier versions."""
    lines = [
        (v.name, v.train.curve_points)
        for v in run.variants
        if v.train and any(p.loss is not None and can_be_drawn(p.loss) for p in v.train.curve_points)
    ]
    if not lines:
        return None
    names = [name for name, _ in lines]
    strong = list(dict.fromkeys([*(name for name in first if name in names), *names]))[: row_plots.MOST_IN_COLOUR]
    notes = [f"{v.name}: {numbers.one_line(v.train.curve)}" for v in run.variants if v.train]
    grey = len(lines) - len(strong)
    caption = f"{'; '.join(notes)}." + (f" Grey: {counted(grey, 'further training run')}." if grey else "")
    return RunFigure("Loss curves", partial(row_plots.curves, lines, strong), "Training loss", listing(strong), caption)


def spread_figure(run: Run) -> RunFigure | None:
    """Distributions of the measured seconds per token; None where no text was generated."""
    known: dict[str, Sequence[float]] = {}
    for variant in run.variants:
        if (timed := variant.inference) is None:
            continue
        seconds = timed.raw_summary.get("decode") or timed.raw_seconds.get("decode") or ()
        if seconds and can_be_drawn(min(seconds), max(seconds)):
            known[variant.name] = seconds
    if not known:
        return None
    longest = max(percentile(seconds, _SHARES[-1]) for seconds in known.values())
    factor, unit = next((factor, unit) for least, factor, unit in _SECONDS if longest >= least)
    rows = [
        SpreadRow(name, *(percentile(seconds, share) / factor for share in _SHARES)) for name, seconds in known.items()
    ]
    return RunFigure(
        title="Measured times",
        make=partial(row_plots.spreads, rows, "time per new token", unit),
        label="Measured times per new token",
        words="",
        caption="Tick: median. Bar: middle half. Line: 1 to 99 % of the single tokens.",
    )


def short_name(name: str) -> str:
    """Cuts a name for a title."""
    return name if len(name) <= 16 else name[:15] + "…"
