"""Atomic writes, one message for a full disk, and the folders, names and keys under which results are kept."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import UserError

PARTIAL = ".partial"
"""Suffix of a folder that is still being filled."""


def home() -> Path:
    """The folder for what is kept between runs: `$HARNESS_HOME`, else `~/.cache/harness`."""
    return Path(os.environ.get("HARNESS_HOME") or Path.home() / ".cache" / "harness")


def slug(text: str) -> str:
    """A folder name for a canonical spec: readable, and unique thanks to six hex digits.

    Example:
        >>> slug("lora:rank=16")
        'lora-rank-16-de684e'
    """
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:40]
    return f"{readable or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def key(**parts: Any) -> str:
    """SHA-256, in hex, of everything that decides a result.

    Example:
        >>> key(a=1, b=2) == key(b=2, a=1)
        True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def write_whole(path: Path, text: str, *, hint: str | None = None) -> None:
    """Writes a text file atomically: it is complete or not there.

    Args:
        path: The file; its folder is created.
        text: Its content, written as UTF-8.
        hint: As for `writing`.

    Raises:
        UserError: The file cannot be written.
    """
    with whole_file(path, hint=hint) as file:
        file.write(text.encode())


@contextmanager
def whole_file(path: Path, *, hint: str | None = None) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block ends; after an error it is deleted.

    Args:
        path: The file; its folder is created.
        hint: As for `writing`.

    Raises:
        UserError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path, hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Creates a temporary folder that replaces `path` when the block ends: `path` is complete or not there."""
    temporary = partial(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    for file in temporary.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    replace_folder(temporary, path)


def partial(path: Path) -> Path:
    """The name of a folder while it is being filled.

    Example:
        >>> partial(Path("adapters/lora")).name
        'lora.partial'
    """
    return path.with_name(path.name + PARTIAL)


def replace_folder(folder: Path, path: Path) -> None:
    """Moves a complete folder to `path`, in place of what is there."""
    shutil.rmtree(path, ignore_errors=True)
    folder.rename(path)


class DiskFull(UserError):
    """The disk is full: whatever is tried next fails as well."""


def disk_full(path: Path | None = None, *, hint: str | None = None) -> DiskFull:
    """The error for a full disk.

    Args:
        path: The file or folder that could not be written, if it is known.
        hint: What the user can do about it; None: the advice for a run folder.
    """
    message = "the disk is full" + (f": could not write `{path}`" if path else "")
    return DiskFull(message, hint or "finished work is kept: free some space and give the same command again")


@contextmanager
def writing(path: Path, *, hint: str | None = None) -> Iterator[None]:
    """Turns an `OSError` inside the block into an error message that names `path`.

    Args:
        path: What is written.
        hint: What the user can do about it; None: the advice for a run folder.

    Raises:
        UserError: The disk is full, or `path` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise not_written(error, path, hint=hint) from error


def not_written(error: OSError, path: Path | None = None, *, hint: str | None = None) -> UserError:
    """The error for a file that could not be written.

    Args:
        error: The system's error.
        path: The file or folder, if it is known.
        hint: What the user can do about it; None: the advice for a run folder.

    Example:
        >>> not_written(PermissionError(errno.EACCES, "Permission denied"), Path("runs")).message
        'could not write `runs`: Permission denied'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path, hint=hint)
    return UserError(
        f"could not write `{path or 'output'}`: {error.strerror or error}",
        hint=hint or "choose another folder with `--output-dir`",
    )
