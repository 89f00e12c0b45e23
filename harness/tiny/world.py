"""A seeded synthetic world: what the embedded model reads, and the rows of the `mini_*` tasks.

The world has countries (facts in English), people (facts in Chinese), sums told as stories, one-line
code, sentences in two languages, and little stories with their summary. `World.documents` writes about
it without end: that is the pretraining text. `World.rows` writes a task's train or test rows.

Train and test are disjoint by construction, and no test item is ever in a document: questions are about
other countries and people (`facts.Lore.part`), everything else is parted by a checksum (`items.held_out`).

Everything follows from one seed. No set is iterated and no `hash` is used, so the rows are the same
bytes under any `PYTHONHASHSEED`.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from harness.tiny import facts, items
from harness.tiny.items import Row, Split

TASKS: Final = (
    "mini_mmlu",
    "mini_gsm8k",
    "mini_code",
    "mini_ceval",
    "mini_translation",
    "mini_summary",
    "mini_text",
)
TRAIN_ROWS: Final = 800
TEST_ROWS: Final = 180


class World:
    """Countries, people and everything told about them, from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.countries = facts.countries(self._rng("countries"))
        self.people = facts.people(self._rng("people"))

    def documents(self, stream: str = "pretraining") -> Iterator[str]:
        """Documents without end. None holds a test item; none shows the form of a generation task."""
        rng = self._rng("documents", stream)
        tellers: dict[Callable[[random.Random], str], int] = {
            self.countries.state: 20,
            self.people.state: 20,
            self.countries.ask: 14,
            self.people.ask: 14,
            items.sums: 18,
            lambda rng: items.told(rng, "train"): 26,
            lambda rng: items.commented(rng, "train"): 8,
            lambda rng: items.paired(rng, "train"): 6,
            lambda rng: items.in_short(rng, "train"): 7,
        }
        while True:
            (tell,) = rng.choices(list(tellers), list(tellers.values()))
            yield tell(rng)

    def rows(self, task: str, split: Split) -> list[Row]:
        """The rows of a task's split (`mini_text` has no train split)."""
        rng = self._rng("rows", task, split)
        count = TRAIN_ROWS if split == "train" else TEST_ROWS
        if task == "mini_mmlu":
            return self.countries.rows(rng, split, count)
        if task == "mini_ceval":
            return self.people.rows(rng, split, count)
        if task == "mini_text":
            return items.texts(rng, count) if split == "test" else []
        make, key = items.MAKERS[task]
        rows: dict[str, Row] = {}
        while len(rows) < count:
            row = items.draw(rng, make, key, split)
            rows.setdefault(row[key], row)
        return list(rows.values())

    def _rng(self, *purpose: str) -> random.Random:
        # A string seeds through sha512, so each purpose has its own stream on every Python.
        return random.Random("/".join((str(self.seed), *purpose)))


def write_rows(world: World, folder: Path) -> None:
    """Write `<task>.<split>.jsonl` for every task; the same seed writes the same bytes."""
    splits: tuple[Split, ...] = ("train", "test")
    for task in TASKS:
        for split in splits:
            if rows := world.rows(task, split):
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (folder / f"{task}.{split}.jsonl").write_text(lines, encoding="utf-8")
