"""Lays out the rows of the tests in one folder, as `datasets` reads them: `OWNER/NAME/README.md` and the files it lists.

Rows are real where the local Hub has them (HARNESS_TEST_HUB), else the made-up ones of `tests/hub`. HellaSwag is not there:
its rows are made of Wikipedia articles (the text of WikiText). The right ending of a sentence is among endings of other
sentences, so that a model which can read chooses better than chance. WikiText itself has the beginnings of its first pages.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELLASWAG, WIKITEXT = "Rowan/hellaswag", "EleutherAI/wikitext_document_level"
MADE_UP = Path(__file__).parent.parent / "hub" / "datasets"
DATASETS = ("cais/mmlu", "openai/gsm8k", WIKITEXT, HELLASWAG)
_HEADING = re.compile(r"^ = ([^=]+) = $")
_PAGES, _CHARACTERS = 2, 4000
"""Pages of WikiText, and the length at which they are cut: a whole one takes a minute of CPU on each side."""
_SHOTS = 40
"""Rows of the train split, for solved examples; the others are the validation split."""


def lay_out(to: Path) -> list[str]:
    """Fills a folder.

    Returns:
        The datasets whose rows are real.
    """
    local = os.environ.get("HARNESS_TEST_HUB")
    hub = Path(local) / "datasets" if local else MADE_UP
    real = [name for name in DATASETS if hub != MADE_UP and (hub / name).is_dir()]
    pages = _pages(hub / WIKITEXT) if WIKITEXT in real else []
    for name in DATASETS:
        if pages and name == HELLASWAG:
            scenes = list(_scenes(pages))
            _write(to / name, {"train": scenes[:_SHOTS], "validation": scenes[_SHOTS:]})
        elif pages and name == WIKITEXT:
            few = [{"page": page[:_CHARACTERS]} for page in pages[:_PAGES]]
            _write(
                to / name, {"train": few, "validation": few, "test": few}
            )  # lm-evaluation-harness looks for all three
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).symlink_to((hub if name in real else MADE_UP) / name)
    return real


def _pages(place: Path) -> list[str]:
    import pyarrow.parquet

    found: list[str] = pyarrow.parquet.read_table(next(place.glob("wikitext-2-raw-v1/test-*")))["page"].to_pylist()
    return found


def _write(place: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    """Writes a dataset; the configuration has the name that lm-evaluation-harness asks for."""
    place.mkdir(parents=True)
    files = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits)
    name = "wikitext-2-raw-v1" if place.match(WIKITEXT) else "default"
    header = f"---\nconfigs:\n- config_name: {name}\n  data_files:\n{files}---\n"
    (place / "README.md").write_text(header, encoding="utf-8")
    for split, rows in splits.items():
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _scenes(pages: list[str]) -> Iterator[dict[str, Any]]:
    """Rows in the columns of HellaSwag: two following sentences, the second one begun, and four endings of it."""
    drawn = random.Random(0)
    found = [pair for page in pages for pair in _pairs(page)]
    drawn.shuffle(found)
    for number, (heading, before, begun, ending) in enumerate(found):
        endings = [each[3] for each in drawn.sample(found[:number] + found[number + 1 :], 3)]
        right = drawn.randrange(4)
        endings.insert(right, ending)
        yield {
            "ind": number,
            "activity_label": heading,
            "ctx_a": before,
            "ctx_b": begun,
            "ctx": f"{before} {begun}",
            "endings": endings,
            "source_id": f"wikitext~{number}",
            "split": "val",
            "split_type": "indomain",
            "label": str(right),
        }


def _pairs(page: str) -> Iterator[tuple[str, str, str, str]]:
    """Title, sentence, the first words of the next sentence, and the rest of it: one for each paragraph that has them."""
    title = ""
    for line in page.split("\n"):
        heading = _HEADING.match(line)
        title = title or (heading[1] if heading else "")
        sentences = [each.strip() for each in line.split(" . ") if 40 <= len(each) <= 200]
        if title and len(sentences) >= 2 and "<unk>" not in title + sentences[0] + sentences[1]:
            words = sentences[1].split()
            yield title, f"{sentences[0]} .", " ".join(words[:4]), " ".join(words[4:])
