"""SHA-256 digests of files, rows and texts: equal content gives an equal digest.

Example:
    >>> text_sha256("rows")[:8]
    'bc51e9e6'
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from harness.api import Row
from harness.errors import UserError
from harness.storage import home, write_whole

CACHED_FROM = 1 << 20
"""Bytes from which a digest is cached: a smaller file is hashed faster than its digest is looked up."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, cached by path, size, modification time and inode.

    The cache is in `$HARNESS_HOME` (default `~/.cache/harness`); if that cannot be written, the file is hashed each time.
    """
    status = path.stat()
    key = text_sha256(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}")
    cached = home() / "digests" / key
    if cached.is_file():
        return cached.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if status.st_size > CACHED_FROM:
        with contextlib.suppress(UserError):
            write_whole(cached, digest)
    return digest


def files_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 of the names and contents of files, in the given order."""
    return text_sha256("".join(f"{path.name}:{file_sha256(path)}\n" for path in paths))


def rows_sha256(rows: Sequence[Row]) -> str:
    """SHA-256 of rows as JSON."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(json.dumps(row, sort_keys=True, default=repr).encode())
    return hasher.hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of a text as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
