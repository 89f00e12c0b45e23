"""Runs the code of task, method and metric files so that it can neither end nor disturb the program that calls it.

While such code runs in this process, what it prints goes to stderr; `sys.exit` and a changed working folder are errors that
name its file. What Python cannot catch, a crash, `os._exit` or a call that never returns, is noticed by another process: the
one that `harness.cli.supervisor` keeps for the command line, or the parent of a child that has called `end_on_hang`.

Example:
    >>> with user_code("t.py", "`sample`"):
    ...     sys.exit(0)
    Traceback (most recent call last):
    ...
    harness.errors.UserError: `t.py` called `sys.exit(0)` in `sample` (...)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import mmap
import os
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UserError

SECONDS_VARIABLE = "HARNESS_USER_CODE_SECONDS"
"""Environment variable with the time limit of one call."""
SECONDS = 60.0
"""Time limit of one call: an import, a task function, `sample` for one row, a metric for one sample."""
SLOTS, _SLOT = 64, 512
"""Threads whose calls are recorded, and bytes of one record."""
PAGE_BYTES = SLOTS * _SLOT
_RECORD = struct.Struct("<QdH")
_OURS = str(Path(__file__).resolve().parent) + os.sep
_numbers = itertools.count(1)
_slots = itertools.count()


class RunningCall(NamedTuple):
    """A call of user code that has not returned."""

    number: int
    """Differs from call to call."""
    seconds: float
    """Its time limit."""
    words: str
    """The file, and what of it is running."""


class _OfThread(threading.local):
    """Slot and record of one thread."""

    def __init__(self) -> None:
        self.slot = next(_slots)
        self.record = b""


_state = _OfThread()
_page: mmap.mmap | None = None
_alarm = False
_lock = threading.Lock()
_printing: list[Any] = []
"""The real stdout, once for each call that is running."""


def supervise(page: mmap.mmap) -> None:
    """Records calls on a page of memory that another process reads with `calls`."""
    global _page
    _page = page


def die_with_parent(parent: int) -> None:
    """Asks the kernel to send SIGKILL when the parent ends (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def end_on_hang() -> None:
    """Ends this process by SIGALRM if a call does not return in time; for children whose parent waits for them."""
    global _alarm
    _alarm = True


def calls(page: mmap.mmap) -> dict[int, RunningCall]:
    """The calls that are running in the process that records on `page`, by slot."""
    found = {}
    for slot in range(SLOTS):
        number, seconds, length = _RECORD.unpack_from(page, slot * _SLOT)
        if number:
            start = slot * _SLOT + _RECORD.size
            words = page[start : start + min(length, _SLOT - _RECORD.size)].decode("utf-8", "replace")
            found[slot] = RunningCall(number, seconds, words)
    return found


def limit() -> float:
    """The time limit of one call in seconds.

    Raises:
        UserError: The environment variable is not a number above zero.
    """
    return seconds_from(SECONDS_VARIABLE, SECONDS)


def seconds_from(variable: str, default: float) -> float:
    """The seconds that an environment variable gives.

    Args:
        variable: Its name.
        default: The seconds if it is not set, or empty.

    Raises:
        UserError: It is not a number above zero.
    """
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"`{variable}` is `{text}`", hint="give seconds, such as 600")
    return seconds


@contextlib.contextmanager
def user_code(file: Path | str, what: str, *, seconds: float | None = None) -> Iterator[None]:
    """Runs a block that calls code of a user's file.

    Args:
        file: The file, for messages.
        what: What is called, for messages: "`sample` on row 3".
        seconds: Its time limit; None: `limit()`.

    Raises:
        UserError: The code called `sys.exit`, or changed the working folder.
    """
    name = Path(file).name
    folder = _working_folder()
    outer = _begin(f"`{name}` in {what}", seconds)
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except SystemExit as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"`{name}` called `sys.exit({'' if error.code is None else repr(error.code)})` in {what}"
            f" ({Path(line.filename).name}:{line.lineno})",
            hint="only the command itself ends the program: return a value, or raise an exception",
        ) from error
    except BaseException as error:
        raise UserError(f"`{name}` raised {type(error).__name__} in {what}: {error}") from error
    finally:
        _end(outer)
        changed = _working_folder() != folder
        if changed and folder is not None:
            os.chdir(folder)
    if changed:
        raise UserError(
            f"`{name}` changed the working folder in {what}",
            hint="use paths relative to the file: `Path(__file__).parent / …`",
        )


def calling(function: Callable[..., Any] | None, what: str) -> contextlib.AbstractContextManager[None]:
    """`user_code` for a function by its own file; does nothing for functions of this package.

    Args:
        function: The function; None does nothing.
        what: As for `user_code`.
    """
    file = None if function is None else code_file(function)
    return contextlib.nullcontext() if file is None else user_code(file, what)


def code_file(function: Callable[..., Any]) -> str | None:
    """The file of a user's function; None for a function of this package."""
    try:
        return _code_file(function)
    except TypeError:  # not hashable
        return _code_file.__wrapped__(function)


@functools.lru_cache(maxsize=4096)
def _code_file(function: Callable[..., Any]) -> str | None:
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    if code is None:
        return getattr(function, "__module__", None) or "a built-in function"
    path = os.path.realpath(code.co_filename)
    return None if path.startswith(_ROOTS) else code.co_filename


def _roots() -> tuple[str, ...]:
    """Folders of this package; tasks and metrics in them are links in a checkout."""
    inner = (Path(_OURS) / name for name in ("tasks", "finetune", "leaderboards"))
    return (_OURS, *(str(each.resolve()) + os.sep for each in inner))


_ROOTS = _roots()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Stops the clock of the running call while this package downloads or loads something for it."""
    record = _state.record
    if record:
        _write(b"")
    try:
        yield
    finally:
        if record:
            _write(record)


def _begin(words: str, seconds: float | None) -> bytes:
    """Starts the record of a call, and sends what it prints to stderr; returns the record of the call around it."""
    outer = _state.record
    with _lock:
        if not _printing:
            sys.stdout, real = sys.stderr, sys.stdout
            _printing.append(real)
        else:
            _printing.append(_printing[0])
    text = words.encode("utf-8", "replace")[: _SLOT - _RECORD.size]
    if _page is not None or _alarm:
        _write(_RECORD.pack(next(_numbers), seconds or limit(), len(text)) + text)
    return outer


def _end(outer: bytes) -> None:
    _write(outer)
    with _lock:
        real = _printing.pop()
        if not _printing:
            sys.stdout = real


def _write(record: bytes) -> None:
    _state.record = record
    if _page is not None and _state.slot < SLOTS:
        start = _state.slot * _SLOT
        _page[start : start + 8] = bytes(8)  # not a call, while the rest is written
        _page[start + 8 : start + max(len(record), 8)] = record[8:]
        _page[start : start + 8] = record[:8] or bytes(8)
    if _alarm and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, _RECORD.unpack_from(record)[1] if record else 0)


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - for every row, and a path object takes three times as long
    except OSError:  # it was deleted
        return None
