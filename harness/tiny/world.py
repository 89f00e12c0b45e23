"""A seeded synthetic world: the pretraining text of the embedded model, and the rows of the `mini_*` tasks.

The world has countries (facts in English), people (facts in Chinese), sums in short stories, one-line code, sentences in
two languages, and short stories with summaries. `World.documents` is an endless stream of pretraining documents about
it; `World.rows` gives the train or test rows of a task.

Train and test items are disjoint by construction, and no document holds a test item: test questions are about other
countries and people (`facts.Lore.of_split`), and all other items are split by a checksum (`items.held_out`).

Everything follows from one seed. No set is iterated and `hash` is not used, so the rows have the same bytes under any
`PYTHONHASHSEED`.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from harness.tiny import facts, items
from harness.tiny.items import Split, TinyRow

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
NOT_TRAINED: Final = ("mini_ceval", "mini_translation")
"""Tasks without a train split: their few other rows are solved examples for prompts with shots."""
SHOT_ROWS: Final = 60
TEST_ROWS: Final = 180


class World:
    """The countries, people and texts that follow from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.countries = facts.countries(self._rng("countries"))
        self.people = facts.people(self._rng("people"))

    def documents(self, stream: str = "pretraining") -> Iterator[str]:
        """An endless stream of documents; none holds a test item, and none shows the prompt format of a generation task."""
        rng = self._rng("documents", stream)
        weights: dict[Callable[[random.Random], str], int] = {
            self.countries.state: 20,
            self.people.state: 20,
            self.countries.ask: 14,
            self.people.ask: 14,
            items.sums: 18,
            lambda rng: items.solved_problem(rng, "train"): 26,
            lambda rng: items.commented_functions(rng, "train"): 8,
            lambda rng: items.translated_sentences(rng, "train"): 6,
            lambda rng: items.summarized_story(rng, "train"): 7,
        }
        while True:
            (write,) = rng.choices(list(weights), list(weights.values()))
            yield write(rng)

    def rows(self, task: str, split: Split) -> list[TinyRow]:
        """The rows of a split of a task; the train split of tasks in `NOT_TRAINED` is small, that of `mini_text` is empty."""
        rng = self._rng("rows", task, split)
        count = TEST_ROWS if split == "test" else SHOT_ROWS if task in NOT_TRAINED else TRAIN_ROWS
        if task == "mini_mmlu":
            return self.countries.rows(rng, split, count)
        if task == "mini_ceval":
            return self.people.rows(rng, split, count)
        if task == "mini_text":
            return items.texts(rng, count) if split == "test" else []
        make, key = items.MAKERS[task]
        rows: dict[str, TinyRow] = {}
        while len(rows) < count:
            row = items.draw(rng, make, key, split)
            rows.setdefault(row[key], row)
        return list(rows.values())

    def _rng(self, *purpose: str) -> random.Random:
        # Python hashes a string seed with SHA-512, so each purpose has its own stream, the same in every Python version.
        return random.Random("/".join((str(self.seed), *purpose)))


def write_rows(world: World, folder: Path) -> None:
    """Writes `<task>.<split>.jsonl` for every task; equal seeds give equal bytes."""
    splits: tuple[Split, ...] = ("train", "test")
    for task in TASKS:
        for split in splits:
            if rows := world.rows(task, split):
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (folder / f"{task}.{split}.jsonl").write_text(lines, encoding="utf-8")
