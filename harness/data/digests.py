"""SHA-256 digests of files, rows and texts: equal content gives an equal digest.

Example:
    >>> text_sha256("rows")[:8]
    'bc51e9e6'
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from harness.api import Row
from harness.errors import UserError
from harness.storage import home, write_whole

CACHED_FROM = 1 << 20
"""Bytes from which a digest is cached: a smaller file is hashed faster than its digest is looked up."""
_TICK_NS = 20 * 10**6
"""The clock of a file system moves in steps of up to 10 ms: a file that is changed twice within one step keeps its times."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, cached by path, size, times of modification and of change, device and inode.

    A program can set the modification time, but not the time of change. The cache is in `$HARNESS_HOME` (default
    `~/.cache/harness`); if that cannot be written, the file is hashed each time.
    """
    state = state_of(path)
    if state[0] > CACHED_FROM and 0 <= (age := time.time_ns() - state[2]) < _TICK_NS:
        time.sleep((_TICK_NS - age) / 1e9)  # from now on, every change gives another time
        state = state_of(path)
    cached = home() / "digests" / text_sha256(f"{path.resolve()}:{state}")
    if cached.is_file():
        return cached.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if state[0] > CACHED_FROM:
        with contextlib.suppress(UserError):
            write_whole(cached, digest)
    return digest


def state_of(path: Path) -> tuple[int, ...]:
    """Size, time of modification, time of change, device and inode of a file: equal if its content was not touched."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino


def files_sha256(paths: Sequence[Path], root: Path | None = None) -> str:
    """SHA-256 of the names and contents of files, in the given order; names are relative to `root` if it is given."""
    names = [path.relative_to(root).as_posix() if root else path.name for path in paths]
    return text_sha256("".join(f"{name}:{file_sha256(path)}\n" for name, path in zip(names, paths, strict=True)))


def rows_sha256(rows: Sequence[Row]) -> str:
    """SHA-256 of rows as JSON."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(json.dumps(row, sort_keys=True, default=repr).encode())
    return hasher.hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of a text as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
