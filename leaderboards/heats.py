"""Heat maps of groups × variants: how each subject of a task changed against the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.heatmap import parts
from harness.report.scores import scale_of, titles
from harness.results import GroupScore, Run, TaskInfo

STRONGEST = 42
"""Percent of colour in a tile: with more, dark text on it could not be read."""
_MOST = 3


@dataclass(frozen=True)
class HeatTile:
    """The difference of a variant in one group."""

    text: str
    kind: str = ""
    """`better` or `worse`: its colour; the sign of the number says the same for most metrics."""
    tint: int = 0
    """Percent of colour."""
    title: str = ""


@dataclass(frozen=True)
class Heat:
    """Differences from the baseline by group."""

    title: str
    words: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatTile, ...]], ...]


def heats(run: Run, *, many: bool = False) -> list[Heat]:
    """Makes the heat maps of tasks with groups, those with most groups first.

    Args:
        run: The run.
        many: Whether the page is large: then only the first is made.
    """
    found = []
    for task in run.tasks:
        base = run.variant(run.baseline).headline(task)
        groups = [group.name for group in base.groups] if base else []
        if base and len(groups) > 1 and parts(groups) is None and len(run.variants) > 1:
            found.append(_heat(run, task, {group.name: group for group in base.groups}))
    found.sort(key=lambda heat: -len(heat.columns))
    return found[: 1 if many else _MOST]


def _heat(run: Run, task: TaskInfo, base: dict[str, GroupScore]) -> Heat:
    scale = scale_of(run, task.name, task.headline)
    better = 1 if task.higher_is_better(task.headline) else -1
    values: dict[str, dict[str, tuple[float, str]]] = {}
    for variant in run.variants:
        score = variant.headline(task)
        if variant.name == run.baseline or score is None:
            continue
        mine = values.setdefault(variant.name, {})
        for group in score.groups:
            theirs = base.get(group.name)
            if group.value is None or theirs is None or theirs.value is None:
                continue
            interval = (
                f", 95 % {scale.signed(group.delta.low)} to {scale.signed(group.delta.high)}" if group.delta else ""
            )
            title = f"{group.name}: {scale.value(group.value)} of {group.n} samples{interval}"
            mine[group.name] = (group.delta.value if group.delta else group.value - theirs.value, title)
    largest = max((abs(value) for mine in values.values() for value, _ in mine.values()), default=0.0) or 1.0

    def tile(found: tuple[float, str] | None) -> HeatTile:
        if found is None:
            return HeatTile("-")
        value, title = found
        kind = "better" if value * better > 0 else "worse"
        return HeatTile(scale.signed(value), kind, round(STRONGEST * abs(value) / largest), title)

    return Heat(
        title=titles(run)[task.name],
        words=f"{task.headline} minus that of {run.baseline}, within each group. Groups are small: no single tile is a verdict.",
        columns=tuple(base),
        rows=tuple((name, tuple(tile(mine.get(group)) for group in base)) for name, mine in values.items()),
    )
