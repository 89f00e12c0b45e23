"""The embedded default model `tiny`: a small model trained by this project, the rows of its tasks, and their build script.

`python -m harness.tiny.build` creates both from the seeded world in `world.py`. They are for demonstration and tests:
the countries, people and sums are invented, and the scores say nothing about real models.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

MODEL: Final = Path(__file__).parent / "model"
"""Folder of the model and its tokenizer, for `from_pretrained`."""

DATA: Final = Path(__file__).parent / "data"
"""Folder of `<task>.<split>.jsonl`."""


def rows(task: str, split: Literal["train", "test"] = "test") -> list[dict[str, Any]]:
    """The committed rows of a `mini_*` task."""
    text = (DATA / f"{task}.{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
