"""Docstrings are in plain English: they open with a verb or a noun, and use no literary words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import house
import pytest

OPENING = re.compile(r"(What|Which|That which|Those|Where|When|Who)\b")
LITERARY = re.compile(
    r"\b(anew|befell|foresees?|foreseen|heed(?:s|ed)?|whom|dear|by and by|spared|told of|is told|meanwhile|and the like)\b",
    re.IGNORECASE,
)
"""Words that a reader whose first language is not English may have to look up, where a common word says the same."""

MODULES = house.modules()


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """The docstrings of a module and of all that it defines, by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", "the module"), text


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_open_with_a_verb_or_a_noun(module: str) -> None:
    assert [name for name, text in docstrings(MODULES[module]) if OPENING.match(text)] == []


@pytest.mark.parametrize("module", [name for name in MODULES if house.room_of(name) != "tasks"])
def test_docstrings_use_common_words(module: str) -> None:
    """Task files are left out: their docstrings quote prompts word for word."""
    found = {name: LITERARY.findall(text) for name, text in docstrings(MODULES[module])}
    assert {name: words for name, words in found.items() if words} == {}
