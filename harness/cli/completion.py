"""Completion of words in the shell: `harness --install-completion` sets it up for bash, zsh, fish and PowerShell."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

LATEST = "latest"
"""Stands for the newest run where a command takes a run."""
_SETS_UP = ("--install-completion", "--show-completion")
_METHOD_OF_NONE = "base"


def is_asked(given: Sequence[str]) -> bool:
    """Whether the shell asks for words, or the user for its set-up: typer answers both and ends the process."""
    return "_HARNESS_COMPLETE" in os.environ or bool(given and given[0] in _SETS_UP)


def variants(incomplete: str) -> Iterator[str]:
    """Names of methods that a variant can begin with."""
    from harness.registry.find import list_entries

    names = [_METHOD_OF_NONE, *(entry.name for entry in list_entries("method"))]
    return (name for name in names if name.startswith(incomplete))


def tasks(incomplete: str) -> Iterator[str]:
    """Names of tasks for the last part of a list with commas."""
    from harness.registry.find import list_entries

    before, comma, begun = incomplete.rpartition(",")
    return (before + comma + entry.name for entry in list_entries("task") if entry.name.startswith(begun))


def runs(incomplete: str) -> Iterator[str]:
    """Names of runs in `runs`, newest first, and `latest`."""
    found = sorted((path.parent.name for path in Path("runs").glob("*/run.json")), reverse=True)
    return (name for name in [LATEST, *found] if name.startswith(incomplete))
