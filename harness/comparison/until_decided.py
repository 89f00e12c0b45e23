"""`--until-decided`: which samples to score next, and which differences from the baseline are decided.

All variants score the samples of a task in the same random order, a pack at a time in turn. After each pack, the tests of
`harness.stats.sequential` are evaluated; a variant stops on a task when its difference is decided, and the baseline goes as
far as the slowest comparison. Decisions follow from the samples on disk alone, so a continued run takes the same ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any, Literal, NamedTuple

import numpy as np

from harness.comparison.state import Session, State
from harness.comparison.verdicts import Pair
from harness.config.points import points
from harness.prepare.sampling_order import why_whole
from harness.prepare.tasks import ScoredTask
from harness.results import Comparison, EarlyStop
from harness.stats.sequential import LEVEL, SequentialTest, evaluation_points, step_down


class SampleSpan(NamedTuple):
    """Samples `first` to `end` − 1 of a task."""

    first: int
    end: int


Wanted = dict[str, dict[str, SampleSpan]]
"""By variant and task: the samples to score next."""


@dataclass
class _Duel:
    """A variant against the baseline on one task."""

    pair: Pair
    task: ScoredTask
    total: int
    test: SequentialTest | None = None
    """None before the first pack."""
    fault: str | None = None
    """Why the difference can no longer be tested."""
    outcome: Literal["shown", "within", "undecided"] | None = None
    """None while samples are being scored."""
    values: list[tuple[float, float]] = field(default_factory=list)
    """Scores of the variant and of the baseline."""

    def span(self, number: int) -> SampleSpan:
        """Returns the samples of a round."""
        ends = [0, *evaluation_points(self.total)]
        return SampleSpan(ends[number], ends[number + 1])


def scored_whole(session: Session) -> list[str]:
    """Says which tasks `--until-decided` scores whole, and why."""
    if not session.config.until_decided:
        return []
    items = session.prepared.variants[0].items
    reasons = {task.name: why_whole(task, items[task.name]) for task in session.prepared.tasks}
    return [
        f"{name}: scored whole in spite of `--until-decided`: {reason}" for name, reason in reasons.items() if reason
    ]


def bases_fit(session: Session, groups: Collection[Sequence[State]]) -> bool:
    """Whether the bases may stay in memory between the packs: a single one does, several take less than half of it.

    Args:
        session: The run.
        groups: The variants of each base; their sizes are known after the first pack.
    """
    # nothing is loaded here for those that are scored on a server
    groups = [states for states in groups if not any(state.variant.served for state in states)]
    sizes = [[state.memory_bytes for state in states if state.status != "failed"] for states in groups]
    loaded = [max(known) for known in ([size for size in group if size] for group in sizes) if known]
    available = session.environment["gpu_bytes"] or session.environment["host_bytes"]
    return len(groups) <= 1 or (len(loaded) == len(groups) and sum(loaded) < available / 2)


class Decisions:
    """The decisions of a run, pack by pack.

    Args:
        session: The run; `ends` and `decided` of it are kept up to date.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._round = 0
        names = [state.name for state in session.active() if state.variant.scored]
        others = [name for name in names if name != session.baseline]
        tasks, items = session.prepared.tasks, session.prepared.variants[0].items
        early = [task for task in tasks if task.name in session.early_tasks]
        self._duels = [
            _Duel(Pair(task.name, task.metrics[0].name, name, session.baseline), task, len(items[task.name]))
            for task in early
            for name in others
            if session.baseline in names
        ]
        self._family = len(self._duels) + (len(tasks) - len(early)) * comb(len(names), 2)
        self._shown: set[int] = set()

    def wanted(self) -> Wanted:
        """Returns the samples to score next; empty when all is decided."""
        session = self.session
        found: Wanted = {state.name: {} for state in session.active() if state.variant.scored}
        duels = [duel for duel in self._open() if {duel.pair.a, duel.pair.b} <= found.keys()]
        if self._round == 0:
            in_packs = {duel.task.name for duel in duels}
            for name, spans in found.items():
                items = session.states[name].variant.items
                for task in session.prepared.tasks:
                    if task.name not in in_packs:
                        spans[task.name] = SampleSpan(0, len(items[task.name]))
        for duel in duels:
            for name in (duel.pair.a, duel.pair.b):
                found[name][duel.task.name] = duel.span(self._round)
        for name, spans in found.items():
            session.ends |= {(name, task): span.end for task, span in spans.items()}
        return {name: spans for name, spans in found.items() if spans}

    def take(self) -> list[str]:
        """Takes the decisions that the scored samples allow; returns a line for each."""
        active = {state.name for state in self.session.active()}
        for duel in self._open():
            if not {duel.pair.a, duel.pair.b} <= active:
                duel.outcome = "undecided"
                continue
            self._evaluate(duel)
        self._round += 1
        tests = [duel.test for duel in self._duels if duel.test and not duel.fault]
        indices = [index for index, duel in enumerate(self._duels) if duel.test and not duel.fault]
        before = {place for place, index in enumerate(indices) if index in self._shown}
        self._shown |= {indices[place] for place in step_down(tests, before, self._family)}
        lines = []
        for index, duel in enumerate(self._duels):
            if duel.test is None:
                continue
            was, n = duel.outcome, duel.test.n
            if index in self._shown and was != "within":
                duel.outcome = "shown"
            elif was is None and duel.test.excluded and not duel.fault:
                duel.outcome = "within"
            elif was is None and n == duel.total:
                duel.outcome = "undecided"
            if duel.outcome != was:
                words = {"shown": "difference shown", "within": f"within ±{self.session.config.smallest}"}
                said = words.get(str(duel.outcome), "undecided")
                lines.append(f"{duel.pair.a} {duel.task.name}: {said} at {n} of {duel.total} samples")
        self.session.decided = {
            duel.pair: self._comparison(duel)
            for duel in self._duels
            if duel.test and {duel.pair.a, duel.pair.b} <= active and np.isfinite(duel.values).all()
        }
        return lines

    def _open(self) -> list[_Duel]:
        return [duel for duel in self._duels if duel.outcome is None]

    def _evaluate(self, duel: _Duel) -> None:
        """Adds the samples of this round to a test."""
        first, end = duel.span(self._round)
        mine, theirs = (self._scores(name, duel, first, end) for name in (duel.pair.a, duel.pair.b))
        if duel.test is None:
            duel.test = self._test(duel, [*mine, *theirs])
        duel.values += zip(mine, theirs, strict=True)
        differences = np.array(mine, dtype=np.float64) - np.array(theirs, dtype=np.float64)
        if duel.test.binary and not {*mine, *theirs} <= {0, 1}:
            duel.fault = f"the first {duel.test.n} scores are 0 or 1, and later ones are not"
        try:
            duel.test.add(differences)
        except ValueError:
            duel.fault = f"a score is outside of the range of `{duel.pair.metric}`"
            duel.test.n = end

    def _scores(self, name: str, duel: _Duel, first: int, end: int) -> list[Any]:
        state = self.session.states[name]
        rows = self.session.log(state, duel.task).rows()[first:end]  # written pack by pack, in the order of the samples
        by_id = {row["id"]: row["metrics"][duel.pair.metric] for row in rows}
        return [by_id[item.request.id] for item in state.variant.items[duel.task.name][first:end]]

    def _test(self, duel: _Duel, scores: Sequence[Any]) -> SequentialTest:
        least, most = duel.task.metrics[0].bounds or (0.0, 1.0)
        width, smallest = most - least, self.session.config.smallest
        return SequentialTest(
            duel.total,
            binary={*scores} <= {0, 1},
            width=width,
            tests=self._family,
            smallest=None if smallest is None else width * points(smallest) / 100,
        )

    def _comparison(self, duel: _Duel) -> Comparison:
        assert duel.test is not None
        test, smallest = duel.test, self.session.config.smallest
        shown = duel.outcome == "shown"
        better = (test.direction > 0) == duel.task.metrics[0].higher_is_better
        low, high = (-test.width, test.width) if duel.fault else test.interval()
        wins = [(mine > theirs) + (mine == theirs) / 2 for mine, theirs in duel.values]
        won = sum(wins) / len(wins)
        return Comparison(
            **duel.pair._asdict(),
            test="alpha spending" if test.binary else "bets",
            value=sum(mine - theirs for mine, theirs in duel.values) / len(duel.values),
            low=low,
            high=high,
            p=LEVEL / test.passed if test.passed and not duel.fault else 1.0,
            verdict="undecided" if not shown else "better" if better else "worse",
            untestable=duel.fault,
            win_rate=won if duel.task.metrics[0].higher_is_better else 1 - won,
            early=EarlyStop(
                n=test.n,
                total=duel.total,
                outcome=duel.outcome or "undecided",
                smallest=None if smallest is None else test.width * points(smallest) / 100,
            ),
        )
