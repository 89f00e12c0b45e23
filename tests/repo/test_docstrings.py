"""Examples in docstrings give the output that they show."""

import ast
import doctest
import importlib
from pathlib import Path

import house
import pytest

import harness

MODULES = house.modules()
SLOW = {"torch", "transformers", "peft", "bitsandbytes"}
"""Packages that take seconds to import."""


def imported(path: Path) -> set[str]:
    """Returns the modules that importing a file imports; imports inside functions are left out."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names if alias.name not in harness.__all__}
            found |= {node.module} | inner & MODULES.keys()
    return found


def light_modules() -> list[str]:
    """Returns our modules that can be imported without a slow package."""
    needs = {module: imported(path) for module, path in MODULES.items()}
    slow = {module for module, names in needs.items() if {name.partition(".")[0] for name in names} & SLOW}
    while more := {module for module, names in needs.items() if names & slow} - slow:
        slow |= more
    return [module for module in MODULES if module not in slow]


@pytest.mark.parametrize("module", [name for name in light_modules() if ">>> " in MODULES[name].read_text()])
def test_examples_in_docstrings_hold(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0
