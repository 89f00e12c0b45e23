"""The cache of converted models in the harness's home: deployed forms, and unpacked GGUF files.

An entry is a folder with a lock file beside it. A process that uses an entry holds the lock together with others, a process
that makes or removes it holds it alone. The oldest entries that nobody uses are removed when all of them exceed a limit.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.errors import UserError
from harness.jobs import Deployed
from harness.storage import PARTIAL, home, partial, read_json, writing

VARIABLE = "HARNESS_CACHE_GB"
"""Environment variable with the most gigabytes that entries take together."""
_LIMIT_GB = 50.0
_LEFT_SECONDS = 86400
"""Age from which the temporary folder of an unpacking was left by a process that was killed."""
_LOCK, _RECORD = ".lock", "made.json"
_HINT = "free some space, or choose another folder with `HARNESS_HOME`"


class KeptEntry:
    """One entry, used by this process until it is closed.

    Args:
        folder: Where the entry is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with writing(folder, hint=_HINT):
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT, 0o644)

    def hold(self, make: Callable[[], None]) -> None:
        """Waits while another process makes the entry, makes it if it is not there, and keeps others from removing it.

        Args:
            make: Creates the folder, completely or not at all; only one process at a time calls it.
        """
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        while not self.folder.is_dir():
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if not self.folder.is_dir():
                try:
                    make()
                    assert self.folder.is_dir(), f"{self.folder} was not made"
                finally:
                    shutil.rmtree(partial(self.folder), ignore_errors=True)
            fcntl.flock(self._lock, fcntl.LOCK_SH)  # another process may remove the entry between the two locks
        with suppress(OSError):
            os.utime(_lock_of(self.folder))

    def close(self) -> None:
        """Lets others remove the entry."""
        os.close(self._lock)


def deployed_folder(key: str) -> Path:
    """The folder of the deployed form with a key."""
    return home() / "deployed" / key[:32]


def write_record(folder: Path, made: Deployed) -> None:
    """Writes a deployed form's record into its folder while that is being filled.

    Args:
        folder: The folder.
        made: Its weights are in that folder.
    """
    record = {"weights": made.weights.relative_to(folder).as_posix(), "bytes": made.bytes, "notes": list(made.notes)}
    (folder / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def read_deployed(folder: Path) -> Deployed:
    """Reads the record of a deployed form.

    Raises:
        UserError: It is damaged.
    """
    try:
        record = read_json(folder / _RECORD)
        return Deployed(folder / record["weights"], int(record["bytes"]), tuple(map(str, record["notes"])))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"`{folder}` is damaged: {error}", hint="delete that folder: it is made again") from error


def is_deployed(path: Path) -> bool:
    """Whether a file or folder is part of a deployed form that is kept here."""
    return path.is_relative_to(home() / "deployed")


def limit_bytes() -> int:
    """The most bytes of all entries together.

    Raises:
        UserError: The environment variable is not a number.
    """
    given = os.environ.get(VARIABLE) or str(_LIMIT_GB)
    try:
        limit = float(given)
        if not limit >= 0:
            raise ValueError
    except ValueError:
        raise UserError(f"{VARIABLE} is `{given}`", hint="give a number of gigabytes, such as 50") from None
    return int(min(limit, 1e9) * 1e9)


def remove_oldest() -> list[Path]:
    """Removes what killed processes left, and the entries used longest ago until the others are within the limit.

    Returns:
        The removed entries. One that a process uses stays.
    """
    limit, removed = limit_bytes(), []
    for left in (path for root in _roots() for path in root.glob(f"*{PARTIAL}")):
        _remove(left.with_name(left.name.removesuffix(PARTIAL)), left)
    folders = [path for root in _roots() for path in root.iterdir() if path.is_dir() and path.suffix != PARTIAL]
    for left in (path for path in folders if path.name.startswith(".")):  # a file that is being unpacked, or was
        if time.time() - _last_use(left) > _LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    entries = sorted((path for path in folders if not path.name.startswith(".")), key=_last_use)
    sizes = {path: _size(path) for path in entries}
    for path in entries:
        if sum(sizes.values()) <= limit:
            break
        if _remove(path, path):
            removed.append(path)
            del sizes[path]
    return removed


def _roots() -> list[Path]:
    """Folders whose subfolders are entries; an unpacked file has one for each precision."""
    roots = [home() / "deployed", *(home() / "gguf").glob("*")]
    return [root for root in roots if root.is_dir()]


def _remove(entry: Path, folder: Path) -> bool:
    """Removes a folder of an entry unless a process uses the entry."""
    try:
        lock = os.open(_lock_of(entry), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden = partial(entry)
        if folder != hidden:  # a process that is killed while it removes leaves no half of an entry
            folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
        return True
    except OSError:
        return False
    finally:
        os.close(lock)


def _lock_of(entry: Path) -> Path:
    return entry.with_name(entry.name + _LOCK)


def _last_use(entry: Path) -> float:
    with suppress(OSError):
        return _lock_of(entry).stat().st_mtime
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0


def _size(entry: Path) -> int:
    total = 0
    for path in entry.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total
