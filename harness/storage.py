"""Atomic writes, safe reads of what others wrote, one message for a full disk, and the names and keys of results."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
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


def import_path() -> dict[str, str]:
    """Environment with which a child process imports as this process does: never a `peft.py` of the working folder.

    The child must be started with `python -P`.
    """
    return {"PYTHONPATH": os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)}


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


JSON_BYTES = 64 << 20
"""Largest JSON file that is read whole; the largest of our own, the results of 500 evaluations, has 5 MB."""


def read_json(path: Path, *, most: int = JSON_BYTES) -> Any:
    """Reads a JSON file that anybody may have written.

    Args:
        path: The file.
        most: Its largest size in bytes.

    Raises:
        ValueError: The file is too large, not UTF-8, not JSON, or nested too deeply; the message says which.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"the file has {size:,} bytes, and at most {most:,} are read")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a file in `folder` names; it must be in that folder.

    Args:
        folder: The folder.
        name: Relative path of the file, as somebody wrote it.

    Raises:
        UserError: The path is absolute, has `..`, or follows a link out of the folder.

    Example:
        >>> inside(Path("data"), "test.jsonl")
        PosixPath('data/test.jsonl')
    """
    path = folder / name
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts or not _within(path, folder):
        raise UserError(
            f"`{folder}` names the file `{name}`, which is outside of it", hint="copy the file into the folder"
        )
    return path


def refuse_links_out(folder: Path) -> None:
    """Refuses a folder with a link to a file outside of it: reading the folder would read that file.

    The Hub's cache is made of links to `blobs` of the same repository, which are allowed.

    Raises:
        UserError: There is such a link.
    """
    links = (Path(where, name) for where, folders, files in os.walk(folder) for name in (*folders, *files))
    for path in sorted(each for each in links if each.is_symlink()):
        if not _within(path, folder):
            raise UserError(
                f"`{path}` is a link to `{path.readlink()}`, outside of the folder",
                hint="only files in the folder are read: copy the file there in place of the link",
            )


def _within(path: Path, folder: Path) -> bool:
    """Whether a path, after its links, is in a folder or in the part of the Hub's cache that belongs to it."""
    allowed = [folder.resolve()]
    if allowed[0].parent.name == "snapshots":
        allowed.append((allowed[0].parents[1] / "blobs").resolve())
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # a link to itself
        return False
    return any(target.is_relative_to(each) for each in allowed)


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


def remove_unfinished(folder: Path) -> None:
    """Deletes the temporary files of `whole_file` that killed processes have left in a folder."""
    for path in folder.rglob(".*.[0-9]*"):
        if path.suffix[1:].isdigit() and path.is_file():
            path.unlink(missing_ok=True)


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
