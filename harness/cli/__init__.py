"""Command line: one module per command; each parses, calls the library and prints.

Data go to stdout, progress and errors to stderr. Exit codes: 0 success; 1 a variant failed, the condition of `--fail-if` was
shown, or that of `--fail-unless` was not; 2 wrong usage, configuration or plugin; 3 a bug; 130 Ctrl-C; 128 + N ended by
signal N.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from typer.exceptions import TyperException

from harness.cli import completion
from harness.cli.app import app
from harness.cli.output import echo
from harness.cli.supervisor import supervised
from harness.errors import UserError

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        arguments: Arguments after `harness`. None: those of the process; the command then runs in a child process, so that
            no task or metric file can fake its exit code (`harness.cli.supervisor`).
    """
    if arguments is None:
        given = sys.argv[1:]
        if completion.is_asked(given):
            app(prog_name="harness")
        return supervised(lambda: _in_good_order(given, for_good=True), functools.partial(_fail, given=given))
    return _in_good_order(list(arguments), for_good=False)


def _in_good_order(given: list[str], *, for_good: bool) -> int:
    received: list[int] = []
    with _signals(received, for_good=for_good):
        code = _run(given or ["--help"])
    return 128 + received[0] if received and code == _INTERRUPTED else code


def _run(given: list[str]) -> int:
    fail = functools.partial(_fail, given=given)
    try:
        code = app(args=given, prog_name="harness", standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # typer catches Ctrl-C and returns this code
            return _interrupted(given)
        return code if isinstance(code, int) else 0
    except UserError as error:
        return fail(error.message, error.hint)
    except SystemExit as error:  # ours is the code that the command returns
        if isinstance(error.__context__, BrokenPipeError):  # rich ends the process where we return
            return _BROKEN_PIPE
        return fail(f"something called `sys.exit({error.code!r})` before the command was done", None)
    except TyperException as error:
        near = [f"`{name}`" for name in getattr(error, "possibilities", None) or []]
        hint = "did you mean " + " or ".join(near) + "?" if near else "`--help` lists commands and flags"
        message, question, nearest = str(getattr(error, "format_message", error.__str__)()).partition(" Did you mean ")
        said = message.partition(" (Possible")[0].partition(", unable")[0].rstrip(".").replace("Value error, ", "")
        return fail(said[:1].lower() + said[1:], f"did you mean {nearest}" if question else hint)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(given)
    except BrokenPipeError:  # `harness ls tasks | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        if error.errno not in _DISK:
            echo(traceback.format_exc(), err=True, nl=False)
            return 3
        from harness.storage import not_written

        refusal = not_written(error, Path(error.filename) if isinstance(error.filename, str) else None)
        return fail(refusal.message, refusal.hint)
    except Exception:
        echo(traceback.format_exc(), err=True, nl=False)
        return 3


@contextlib.contextmanager
def _signals(received: list[int], *, for_good: bool) -> Iterator[None]:
    """Ends the command in good order at SIGTERM and SIGHUP, as at Ctrl-C; further signals do not disturb that.

    Args:
        received: Gets the number of a signal other than Ctrl-C.
        for_good: Whether the process ends with the command: a second signal is then ignored until it has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    stopped = False

    def stop(number: int, _: object) -> None:
        nonlocal stopped
        stopped = True
        for each in _STOPPING:
            signal.signal(each, signal.SIG_IGN)
        if number != signal.SIGINT:
            received.append(number)
        raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in _STOPPING}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:  # `nohup`, or a background job of a script
            signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items() if not (stopped and for_good) else ():
            signal.signal(each, handler)


def _interrupted(arguments: list[str]) -> int:
    """Prints the command that continues an interrupted run; finished work is kept."""
    if arguments and arguments[0] in ("compare", "eval", "train", "bench"):
        again = shlex.join(["harness", *(word for word in arguments if word != "--fresh")])
        echo(f"\ninterrupted; finished work is kept. To continue: {again}", err=True)
    return _INTERRUPTED


def _fail(message: str, hint: str | None, *, given: Sequence[str] = ()) -> int:
    """Prints an error on stderr, and as a document on stdout if the command was to print JSON."""
    echo(f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""), err=True)
    if "--format=json" in given or ("--format", "json") in itertools.pairwise(given):
        echo(json.dumps({"error": message, "hint": hint}, indent=1, ensure_ascii=False))
    return 2
