"""Chooses the solved examples that precede each sample.

The orders `lm-eval` and `lm-eval-spare` choose the same examples as lm-evaluation-harness 0.4 (`ContextSampler`, seed 1234).
Its random generator advances row by row and starts again for each group, so the examples of a row do not depend on which
other rows are scored.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from harness.api import Choose, Row, Sample, Task, Text
from harness.data.sources import rows as load_rows
from harness.data.sources import source
from harness.errors import UserError
from harness.prompts.samples import answer_text, cell_of, sample_of

LM_EVAL_SEED = 1234


class Shots:
    """The solved examples of a task.

    Args:
        name: Name of the task, for messages.
        task: The task.
        count: Number of examples before each sample.
        data: All rows of the task's data, with their indices.
    """

    def __init__(self, name: str, task: Task, count: int, data: Sequence[tuple[int, Row]]) -> None:
        self.name, self.task, self.count, self.data = name, task, count, data
        self.pools: dict[str | None, list[tuple[int, Row]]] = defaultdict(list)
        self._samples: dict[int, Sample] = {}
        self._positions: dict[int, list[int]] | None = None
        if not count or task.shots_from is None:
            return
        for index, row in enumerate(load_rows(task.shots_from)):
            self.pools[cell_of(name, task.group, row, index)].append((index, row))
        self._from_the_same_rows = source(task.shots_from) == source(task.data)

    def before(self, index: int, row: Row, sample: Sample) -> list[Sample]:
        """The solved examples that precede one row.

        Args:
            index: Index of the row in the data.
            row: The row.
            sample: Its sample.

        Raises:
            UserError: There are fewer examples than requested, or one of them is not valid.
        """
        if not self.count or isinstance(sample, Text):
            return []
        if self.task.shots_from is None:
            raise UserError(
                f"task `{self.name}` has no solved examples", hint="give the task `shots_from=…`, or request 0 shots"
            )
        group = cell_of(self.name, self.task.group, row, index)
        if self.task.shots_order in ("first", "seeded"):
            return self._chosen(group, sample)
        if self._positions is None:
            self._positions = self._draw_all()
        return [self._sample(*self.pools[group][position]) for position in self._positions[index]]

    def _chosen(self, group: str | None, sample: Sample) -> list[Sample]:
        """The first examples of the pool, or a draw seeded by the sample's content; never the sample itself."""
        pool: Sequence[tuple[int, Row]] = self.pools[group]
        if self.task.shots_order == "seeded" and len(pool) > self.count:
            generator = random.Random(hashlib.sha256(repr((sample.prompt, answer_text(sample))).encode()).digest())  # type: ignore[union-attr]
            pool = generator.sample(pool, self.count + 1)  # one more, in case the sample itself is among them
        found: list[Sample] = []
        for index, row in pool:
            shot = self._sample(index, row)
            if not (self._from_the_same_rows and _same_question(shot, sample)):
                found.append(shot)
            if len(found) == self.count:
                return found
        raise self._too_few(group, len(found))

    def _draw_all(self) -> dict[int, list[int]]:
        """For the index of each row, positions in the pool of its group, drawn as lm-evaluation-harness does."""
        generators: dict[str | None, random.Random] = defaultdict(lambda: random.Random(LM_EVAL_SEED))
        spare = int(self.task.shots_order == "lm-eval-spare")
        positions = {}
        for index, row in self.data:
            group = cell_of(self.name, self.task.group, row, index)
            pool, generator = self.pools[group], generators[group]
            if len(pool) < self.count + spare:
                raise self._too_few(group, len(pool) - spare)
            drawn = generator.sample(range(len(pool)), self.count + spare)
            if spare:
                drawn = [position for position in drawn if pool[position][1] != row][: self.count]
                if len(drawn) < self.count:
                    others = [position for position, (_, shot) in enumerate(pool) if shot != row]
                    if len(others) < self.count:
                        raise self._too_few(group, len(others))
                    drawn = generator.sample(others, self.count)
            positions[index] = drawn
        return positions

    def _sample(self, index: int, row: Row) -> Sample:
        if index not in self._samples:
            self._samples[index] = sample_of(self.name, self.task, row, index)
        return self._samples[index]

    def _too_few(self, group: str | None, found: int) -> UserError:
        where = f" in group `{group}`" if group else ""
        return UserError(
            f"task `{self.name}` has {found} solved examples{where}, but {self.count} shots were requested",
            hint=f"request at most {found} shots",
        )


def _same_question(shot: Sample, sample: Sample) -> bool:
    if isinstance(shot, Text) or isinstance(sample, Text) or shot.prompt != sample.prompt:
        return False
    if isinstance(shot, Choose) and isinstance(sample, Choose) and shot.choices != sample.choices:
        return False
    return answer_text(shot) == answer_text(sample)
