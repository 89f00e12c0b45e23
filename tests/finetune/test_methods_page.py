"""The page of methods agrees with the registry."""

import re
from pathlib import Path

from harness.registry.find import list_entries
from harness.registry.scan import Entry

PAGE = (
    (Path(__file__).parents[2] / "finetune" / "README.md")
    .read_text(encoding="utf-8")
    .partition("\n## Training data")[0]
)
BUILT_IN = {entry.name: entry for entry in list_entries("method") if entry.distribution is None}


def row(entry: Entry) -> str:
    options = entry.options
    said = [f"`{entry.name}`", f"{options['lr']:g}", options["parameters"]]
    return f"| {' | '.join([*said, *('yes' if options[key] else 'no' for key in ('mergeable', 'checkpointing'))])} |"


def test_the_table_is_generated_from_the_registry() -> None:
    table = re.findall(r"^\| `.*\|$", PAGE.partition("## What a method reaches")[0], re.MULTILINE)
    assert table == [row(entry) for entry in BUILT_IN.values()], "write the rows that are asserted here into the page"


def test_every_method_is_explained_once_with_its_paper() -> None:
    explained = re.findall(r"^- \*\*`(\w+)`\*\*", PAGE, re.MULTILINE)
    assert sorted(explained) == sorted(BUILT_IN)
    on_the_page = set(re.findall(r"arxiv\.org/abs/(\d{4}\.\d{5})", PAGE))
    in_the_files = set()
    for entry in BUILT_IN.values():
        in_the_files |= set(re.findall(r"(?:arXiv\s+)(\d{4}\.\d{5})", entry.path.read_text(encoding="utf-8")))
    assert on_the_page == in_the_files
