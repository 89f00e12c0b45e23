"""The embedded default: a small model trained by this project, the rows of its tasks, and their build script.

`python -m harness.tiny.build` makes both from the seeded world in `world.py`. It is a demonstration and a
test bed: its countries, people and sums are invented, and its scores say nothing about real models.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

MODEL: Final = Path(__file__).parent / "model"
"""Folder of the model and its tokenizer, as `from_pretrained` takes it."""

DATA: Final = Path(__file__).parent / "data"
"""Folder of `<task>.<split>.jsonl`."""


def rows(task: str, split: Literal["train", "test"] = "test") -> list[dict[str, Any]]:
    """The committed rows of a `mini_*` task."""
    text = (DATA / f"{task}.{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
