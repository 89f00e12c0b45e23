"""The memory that this process may use: the machine's, and what its control groups (containers, batch systems) leave of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.sandbox.control_groups import groups

_ROOT = Path("/")
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit, use, and the field of `memory.stat` with what is freed when it is needed, of version 2 and 1."""


def total_memory(root: Path = _ROOT) -> int:
    """Bytes that this process may use, whatever is in use: the same at each call.

    Args:
        root: The root of the file system, which tests replace.
    """
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *(limit for limit, _ in _limits(root))])


def memory_left(root: Path = _ROOT) -> int | None:
    """Bytes that the limits of the control groups leave; None without a limit.

    Args:
        root: The root of the file system, which tests replace.
    """
    return min((max(0, limit - used) for limit, used in _limits(root)), default=None)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """The limit of each control group, and what is in use of it."""
    for folder in groups("memory", root):
        for limit, usage, cached in _FILES:
            with suppress(OSError, ValueError):  # no such file; `max`
                most = int((folder / limit).read_text())
                if most > 0:
                    yield most, _used(folder, usage, cached)


def _used(folder: Path, usage: str, cached: str) -> int:
    used = 0
    with suppress(OSError, ValueError):
        used = int((folder / usage).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        used -= next((int(line.split()[1]) for line in lines if line.split()[0] == cached), 0)
    return used
