"""Learning against forgetting: each variant's gain on the tasks that it was trained for, and its change on others.

A variant is placed by the share of samples that it wins against the baseline, which has a meaning for every metric. Documents
of earlier versions have no such shares of corpus metrics: then the axes are mean differences in points.
"""

from __future__ import annotations

from functools import partial

from harness.leaderboards.figures import RunFigure
from harness.leaderboards.plots import PlaneAxes, PlanePoint, plane
from harness.report.gains import gains, trained_for
from harness.report.numbers import a_few, counted
from harness.report.scores import headline_delta
from harness.results import Gain, Run, Variant, Verdict
from harness.stats.pooled import Estimate, pooled

WithInterval = tuple[float, float, float]
"""A number with the ends of its interval."""

_LARGEST = 1000
"""Points that can be drawn; a document from elsewhere may hold any number."""


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
        ("samples won on trained tasks ↑ learned", "samples won on other tasks → kept", " %", 50.0)
        if shares
        else ("points gained on trained tasks ↑ learned", "points gained on other tasks → kept", "", 0.0)
    )
    make = partial(plane, points, PlaneAxes(zero, learned, kept, unit))
    caption = (
        f"{base} is at {'50 %' if shares else '0'} on both axes. Up: better on tasks that the variant was trained for. Left: worse"
        f" on others. {'Means over tasks; samples scored alike count half.' if shares else 'Mean differences over tasks in points.'}"
        f" ▲ shown better than {base} on a trained task and worse on none, ▼ shown worse on a task, ● neither."
    )
    absent = [gain.variant for gain, _ in found if gain.variant not in {point.name for point in points}]
    if absent:
        caption += f" Not in the plot, because tasks of one kind are missing or it was not trained: {a_few(absent)}."
    words = f"{counted(len(points), 'variant')}; the quality table has the numbers"
    return RunFigure("Learned against forgotten", make, "Learned against forgotten", words, caption)


def mark_of(gain: Gain) -> Verdict:
    """The verdicts of a variant in one mark: worse on any task, else better on a task that it was trained for."""
    if gain.trained.worse or gain.other.worse:
        return "worse"
    return "better" if gain.trained.better else "undecided"


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
