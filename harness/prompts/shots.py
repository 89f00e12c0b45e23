"""Solved examples: which of them stand before a sample.

The orders `lm-eval` and `lm-eval-spare` give the examples that lm-evaluation-harness 0.4 gives (`ContextSampler`, seed 1234), for
every row of the data, whatever part of them is asked: its generator is drawn from row by row, anew for each group.
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
        name: The task's, for messages.
        task: The task.
        count: How many each sample gets.
        data: All rows that are scored, with their places.
    """

    def __init__(self, name: str, task: Task, count: int, data: Sequence[tuple[int, Row]]) -> None:
        self.name, self.task, self.count, self.data = name, task, count, data
        self.pools: dict[str | None, list[tuple[int, Row]]] = defaultdict(list)
        self._samples: dict[int, Sample] = {}
        self._drawn: dict[int, list[int]] | None = None
        if not count or task.shots_from is None:
            return
        for index, row in enumerate(load_rows(task.shots_from)):
            self.pools[cell_of(name, task.group, row)].append((index, row))
        self._from_the_same_rows = source(task.shots_from) == source(task.data)

    def before(self, index: int, row: Row, sample: Sample) -> list[Sample]:
        """The solved examples of one row.

        Raises:
            UserError: There are fewer than were asked for, or one of them is faulty.
        """
        if not self.count or isinstance(sample, Text):
            return []
        if self.task.shots_from is None:
            raise UserError(
                f"task `{self.name}` has no solved examples to show", hint="give it `shots_from=…`, or ask for 0 shots"
            )
        group = cell_of(self.name, self.task.group, row)
        if self.task.shots_order in ("first", "seeded"):
            return self._chosen(group, sample)
        if self._drawn is None:
            self._drawn = self._draws()
        return [self._sample(*self.pools[group][place]) for place in self._drawn[index]]

    def _chosen(self, group: str | None, sample: Sample) -> list[Sample]:
        """The pool's first, or so many drawn by a generator of the sample's own; never the sample itself."""
        pool: Sequence[tuple[int, Row]] = self.pools[group]
        if self.task.shots_order == "seeded" and len(pool) > self.count:
            generator = random.Random(hashlib.sha256(repr((sample.prompt, answer_text(sample))).encode()).digest())  # type: ignore[union-attr]
            pool = generator.sample(pool, self.count + 1)  # one to spare
        found: list[Sample] = []
        for place, row in pool:
            shot = self._sample(place, row)
            if not (self._from_the_same_rows and _same_question(shot, sample)):
                found.append(shot)
            if len(found) == self.count:
                return found
        raise self._too_few(group, len(found))

    def _draws(self) -> dict[int, list[int]]:
        """By row, places in the pool of its group, as lm-evaluation-harness draws them."""
        generators: dict[str | None, random.Random] = defaultdict(lambda: random.Random(LM_EVAL_SEED))
        spare = int(self.task.shots_order == "lm-eval-spare")
        drawn = {}
        for index, row in self.data:
            group = cell_of(self.name, self.task.group, row)
            pool, generator = self.pools[group], generators[group]
            if len(pool) < self.count + spare:
                raise self._too_few(group, len(pool) - spare)
            places = generator.sample(range(len(pool)), self.count + spare)
            if spare:
                places = [place for place in places if pool[place][1] != row][: self.count]
                if len(places) < self.count:
                    others = [place for place, (_, shot) in enumerate(pool) if shot != row]
                    if len(others) < self.count:
                        raise self._too_few(group, len(others))
                    places = generator.sample(others, self.count)
            drawn[index] = places
        return drawn

    def _sample(self, index: int, row: Row) -> Sample:
        if index not in self._samples:
            self._samples[index] = sample_of(self.name, self.task, row, index)
        return self._samples[index]

    def _too_few(self, group: str | None, found: int) -> UserError:
        where = f" in group `{group}`" if group else ""
        return UserError(
            f"task `{self.name}` has {found} solved examples{where}, {self.count} shots were asked",
            hint=f"ask for at most {found}",
        )


def _same_question(shot: Sample, sample: Sample) -> bool:
    if isinstance(shot, Text) or isinstance(sample, Text) or shot.prompt != sample.prompt:
        return False
    if isinstance(shot, Choose) and isinstance(sample, Choose) and shot.choices != sample.choices:
        return False
    return answer_text(shot) == answer_text(sample)
