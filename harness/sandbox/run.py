"""Runs a generated program and its tests, without network and within limits, and deletes everything they wrote.

Each program gets a new Python process (`harness.sandbox.child`) that restricts itself (`harness.sandbox.kernel`) and becomes
two before the first line of the program: one runs the program, the other its tests. What is covered, with the layer that does
it, and what is not: the README of this folder. `protections()` gives the active protections on this machine.

Example:
    >>> run_program("assert 1 + 1 == 2").passed
    True
    >>> run_program("import os; os._exit(0)").fault
    'exit'
    >>> run_program("def add(a, b): return a - b", "assert add(2, 3) == 5").detail
    'AssertionError: '
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import random
import secrets
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from harness.errors import UserError
from harness.sandbox.exchange import REPORT_BYTES, Exchange

Fault = Literal[
    "exception", "exit", "timeout", "memory", "disk", "files", "network", "processes", "signals", "stdin", "crash"
]
"""Why a program did not pass: it raised an exception; exited early; exceeded the time; exceeded the memory; exceeded the
disk; accessed files outside its folder; used the network; started processes (or too many threads); sent signals; read
standard input; crashed the interpreter."""

LAYERS = ("namespaces", "landlock", "seccomp")
"""Features of the kernel that are used if it has them."""
_OWN_FOLDER = str(Path(__file__).parent)
START = f"""
import sys
for name, path in (("harness", []), ("harness.sandbox", [{_OWN_FOLDER!r}])):
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = path
from harness.sandbox.child import main
main()
"""
"""Imports the child's modules without the rest of the package, which programs would find in `sys.path`."""
_SYSTEM = ("/usr", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero")
"""Files and folders that Python's own modules read, besides Python's folders."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of a program."""

    cpu_seconds: int = 3
    """Processor time of all threads of the program together, and of its tests. lm-evaluation-harness and the authors of
    HumanEval allow 3 s of wall time, in which a right program fails if other processes use the processors."""
    wall_seconds: float = 20.0
    """Measured from the first line, for programs that wait and use no processor."""
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Size of a single file."""
    disk_bytes: int = 64 << 20
    """Size of all files together, if the program has a disk in memory."""
    threads: int = 64
    """Threads besides the main thread, if the kernel can count them."""


LIMITS = Limits()
"""Limits of a program, unless others are given."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    passed: bool
    """Whether the last statement of program and tests was executed in time, without an exception."""
    fault: Fault | None = None
    """Why it did not pass."""
    detail: str = ""
    """The fault in one readable line."""
    refused: tuple[str, ...] = ()
    """Kinds of operations that were refused, whether or not the program passed."""


def run_program(source: str, tests: str = "", limits: Limits = LIMITS, *, given: str = "") -> Outcome:
    """Runs a Python program and its tests once; returns whether they reached their end.

    Blocks while they run. `harness.sandbox.attempts.judge` chooses the moment, and repeats what ran out of time.

    Args:
        source: The source code of the program.
        tests: Source code that runs after the program, in a process of its own, and uses its names.
        limits: Resource limits.
        given: Beginning of the program that the task wrote; the tests use its imports and complete functions as they are
            there, whatever the rest of the program makes of their names.

    Raises:
        UserError: The process could not be started, or failed before the program's first line.

    Example:
        >>> run_program("while True: pass", limits=Limits(wall_seconds=0.5)).fault
        'timeout'
    """
    return _run(source, tests, given, limits)[0]


@functools.cache
def protections() -> dict[str, str]:
    """The protections that are active on this machine: aspect to description.

    Raises:
        UserError: The process could not be started.

    Example:
        >>> sorted(protections())
        ['cpu', 'file size', 'files', 'folder', 'memory', 'network', 'processes', 'threads']
    """
    return _run("pass", "", "", LIMITS)[1]


def _run(source: str, tests: str, given: str, limits: Limits) -> tuple[Outcome, dict[str, str]]:
    """Runs a program; returns the outcome and the protections that were active."""
    if os.name != "posix":
        raise UserError(
            "generated programs cannot be run on this system: it has no way to restrict them",
            hint="use Linux, WSL or macOS",
        )
    question = secrets.token_bytes(16)
    temporary = tempfile.TemporaryDirectory(prefix="harness-guard-", ignore_cleanup_errors=True)
    with temporary as folder, _child(folder) as child:
        examination = _framed((tests, given, question))
        exchange = Exchange(child, _framed(_job(source, folder, limits)) + examination)
        try:
            exchange.run(limits.wall_seconds)
        finally:
            exchange.end()
    return _outcome(exchange, question, limits.wall_seconds), exchange.protections


def _job(source: str, folder: str, limits: Limits) -> dict[str, Any]:
    """Everything that the child reads before it becomes two; the tests follow it."""
    packages = list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    return {
        **asdict(limits),
        "source": source,
        "folder": folder,
        "own_folder": _OWN_FOLDER,
        "parent": os.getpid(),
        "packages": packages,
        "readable": [sys.base_prefix, sys.base_exec_prefix, *packages, *_SYSTEM],
        "descriptors": [10 + number for number in random.SystemRandom().sample(range(50), 3)],
        "layers": LAYERS,
    }


def _framed(message: Any) -> bytes:
    """A message in the form that the child reads: its length, then its content."""
    content = marshal.dumps(message)
    return len(content).to_bytes(8, "little") + content


@contextlib.contextmanager
def _child(folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the child process, and kills it with its process group at the end, whatever happens."""
    # A bare interpreter: no site packages, no user folders, no other environment variables, and constant string hashes.
    environment = {
        **{"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
        **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise UserError(
            f"no process could be started for a generated program: {error.strerror}",
            hint=f"check that `{sys.executable}` can be run, and that the limit on processes (`ulimit -u`) is not reached",
        ) from error
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def _outcome(exchange: Exchange, question: bytes, wall_seconds: float) -> Outcome:
    if not exchange.program:
        lines_received = (exchange.report + exchange.notes).decode(errors="replace").strip().splitlines()
        reason = lines_received[-1] if lines_received else f"exit code {exchange.child.returncode}"
        raise UserError(
            f"the process for a generated program did not start: {reason}",
            hint="for more, run `python -c \"from harness.sandbox.run import run_program; print(run_program('pass'))\"`",
        )
    lines = [line.decode(errors="replace").partition(" ") for line in bytes(exchange.notes).split(b"\n")]
    refused = tuple(dict.fromkeys(rest for word, _, rest in lines if word == "refused" and rest in _KINDS))
    verdict = bytes(exchange.report).partition(b"\n")[2]
    if verdict == b"done " + bytes(255 - byte for byte in question) + b"\n":
        return Outcome(passed=True, refused=refused)
    fault, detail = _fault(exchange, verdict.decode(errors="replace").removesuffix("\n"), wall_seconds)
    if refused and fault in ("exception", "files", "exit"):
        return Outcome(False, _KINDS[refused[0]], detail, refused)
    return Outcome(False, fault, detail, refused)


def _fault(exchange: Exchange, verdict: str, wall_seconds: float) -> tuple[Fault, str]:
    """The fault of a program that did not pass, and its description."""
    code = exchange.child.returncode
    if not exchange.in_time:
        return "timeout", f"not done after {wall_seconds:g} seconds"
    word, _, rest = verdict.partition(" ")
    kind, _, detail = rest.partition(" ")
    if word == "fault" and kind in _KINDS:
        return _KINDS[kind], detail
    if code == -getattr(signal, "SIGXCPU", 0):
        return "timeout", "the tests are out of processor time"
    if code is not None and code < 0 and len(exchange.notes) <= REPORT_BYTES:
        return "crash", f"ended by {signal.Signals(-code).name}"
    return "exit", "exited before the last statement"


_KINDS: dict[str, Fault] = {kind: kind for kind in get_args(Fault)}
