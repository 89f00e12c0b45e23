"""Runs the command line in a child process, so that no task or metric file can fake its exit code, crash it or stop it.

The child reports its exit code through a pipe when it is done, and records on a page of shared memory which user code it is
calling (`harness.user_code`). A child that ends without a report was ended by such code, by a signal or by a bug; one whose
call does not return in time is killed. Signals are passed on, and the child dies with its parent.
"""

from __future__ import annotations

import io
import mmap
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from harness.user_code import PAGE_BYTES, SECONDS_VARIABLE, RunningCall, calls, die_with_parent, supervise

Show = Callable[[str, str | None], int]
"""Prints an error and its hint, and returns the exit code."""

_STEP = 0.25
"""Seconds between two looks at the child; time in which this process was stopped too does not count."""
_LAST_SECONDS = 10.0
"""Time for the child to end after its report: threads and handlers of user code may hold it."""
_MARK_BYTES, _PIPE_BYTES = 16, 1 << 16
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_AWAITED = {signal.SIGCHLD, signal.SIGINT}


def supervised(run: Callable[[], int], show: Show) -> int:
    """Runs the command line in a child and returns its exit code.

    Args:
        run: The command line.
        show: Prints an error about the child.
    """
    page = mmap.mmap(-1, PAGE_BYTES)
    reading, writing = os.pipe()
    mark = os.urandom(_MARK_BYTES)
    parent = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(reading)
        die_with_parent(parent)
        supervise(page)
        return _report(run, writing, mark)
    os.close(writing)
    try:
        return _watched(child, reading, mark, page, show)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _report(run: Callable[[], int], writing: int, mark: bytes) -> int:
    """Runs the command line, and reports its exit code before handlers of user code can run.

    Args:
        run: The command line.
        writing: The pipe.
        mark: Is written before the exit code: user code that writes on every descriptor reports nothing.
    """
    _keep_stdout()
    code = run()
    with suppress(BrokenPipeError, ValueError):
        sys.stdout.flush()
    os.write(writing, mark + bytes([code & 0xFF]))
    sys.stdout = sys.stderr  # what runs at the end of the process prints no data
    return code


def _keep_stdout() -> None:
    """Moves stdout to another descriptor: what C libraries and programs of user code print goes to stderr."""
    if sys.stdout is None or sys.stderr is None:
        return
    with suppress(OSError, ValueError, io.UnsupportedOperation):
        sys.stdout.flush()
        data = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        sys.stdout = os.fdopen(
            data,
            "w",
            buffering=1 if sys.stdout.line_buffering else -1,
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
        )


def _watched(child: int, reading: int, mark: bytes, page: mmap.mmap, show: Show) -> int:
    """Waits for the child; kills it when a call of user code does not return."""
    passed_on: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        passed_on.append(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`
            signal.signal(number, pass_on)
    os.set_blocking(reading, False)
    running: dict[int, tuple[RunningCall, float]] = {}
    written, report, since_report = b"", b"", 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        written = written[-_MARK_BYTES:] + _read(reading)
        report = report or written.partition(mark)[2][:1]
        if ended:
            break
        running = {
            slot: (call, running[slot][1] + _STEP if slot in running and running[slot][0] == call else 0.0)
            for slot, call in calls(page).items()
        }
        hanging = next((call for call, seconds in running.values() if seconds > call.seconds), None)
        since_report += _STEP if report else 0.0
        if hanging is not None or since_report > _LAST_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return report[0] if report else _hung(hanging, show)
        came = signal.sigtimedwait(_AWAITED, _STEP)
        if came is not None and came.si_signo == signal.SIGINT and came.si_code <= 0:
            with suppress(ProcessLookupError):  # of another process; Ctrl-C reaches the child by itself
                os.kill(child, signal.SIGINT)
    if report:
        return report[0]
    return _gone(os.waitstatus_to_exitcode(status), list(calls(page).values()), passed_on, show)


def _read(reading: int) -> bytes:
    try:
        return os.read(reading, _PIPE_BYTES)
    except BlockingIOError:
        return b""


def _hung(call: RunningCall | None, show: Show) -> int:
    words = call.words if call else "the program"
    seconds = call.seconds if call else _LAST_SECONDS
    return show(
        f"{words} did not return within {seconds:g} s, so the command was ended",
        f"finished work is kept; for slow code, set a longer time: `{SECONDS_VARIABLE}=600`",
    )


def _gone(code: int, running: list[RunningCall], passed_on: list[int], show: Show) -> int:
    """The exit code for a child that ended without a report."""
    if code < 0 and -code in passed_on:  # end as the child did, for who asked
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    if code == -signal.SIGINT:
        return 130
    if running:
        return show(
            f"the command {how} while it ran code of {running[0].words}",
            "finished work is kept; look for a crash or a call of `os._exit` there",
        )
    show(f"the command {how} before it was done", "finished work is kept: give the same command again")
    return 3
