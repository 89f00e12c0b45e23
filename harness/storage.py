"""Files that are there whole or not at all, and the names and keys that they are found by."""

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
from typing import Any

from harness.errors import UserError


def slug(text: str) -> str:
    """A folder name for a canonical spec: readable, and unique by six hex digits.

    Example:
        >>> slug("lora:rank=16")
        'lora-rank-16-de684e'
    """
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:40]
    return f"{readable or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def key(**parts: Any) -> str:
    """SHA-256 of everything that decides a result, as hex.

    Example:
        >>> key(a=1, b=2) == key(b=2, a=1)
        True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which takes the place of `path` when that is done: it is there whole or not at all."""
    aside = path.with_name(path.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    for file in aside.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)


def disk_full(path: Path | None = None) -> UserError:
    """The error for a full disk.

    Args:
        path: The file or folder that could not be written, where it is known.
    """
    message = "the disk is full" + (f": could not write `{path}`" if path else "")
    return UserError(message, hint="finished work is kept: free some space and give the same command again")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder that may not be written into a sentence.

    Raises:
        UserError: For `OSError`s of that kind.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path) from error
        raise UserError(
            f"could not write `{path}`: {error.strerror or error}", hint="choose another folder with `--output-dir`"
        ) from error
