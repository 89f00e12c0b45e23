"""Runs a generated program in a separate process, without network and within limits, and deletes everything it wrote.

Each program gets a new Python process (`harness.sandbox.child`) that restricts itself (`harness.sandbox.kernel`) before
the first line of the program.

Covered, with the layer that does it (`protections()` gives the active protections on this machine):
- network: a network namespace without devices, and no sockets (seccomp);
- processes: the program is a single process and cannot start another, so no fork bomb, no shell, no daemon (seccomp); the
  number of threads is limited; it has its own session, is killed with its process group, and dies when the harness dies;
- other processes: no signals, no tracing, no change of limits or priorities (seccomp, Landlock);
- files: it can write only in a temporary folder, which is a small disk in memory if the kernel allows it (mount namespace),
  and can read only there and in Python's folders (Landlock); it cannot change the owner, mode or time of a file (seccomp);
- memory, CPU time, file size, open files, core dumps (rlimits), and wall time (measured by the parent from the first line);
- input and output: its output is discarded, reading standard input raises, and its environment has none of your variables;
- early exit: no way of exiting early counts as a pass. A program passes if it answers a question that the parent sends
  through a pipe, and it is answered only after the last statement.

Not covered: this is not a security boundary against malicious programs. The kernel is shared, so a vulnerability in the
kernel is a vulnerability here. A program written to deceive this module can give the answer itself, as it runs in the same
process as the code that answers. It can measure time, use the processor for a few seconds, and see the names and sizes of
files that system calls report. If the kernel has no Landlock, the program can read all files and write none, not even its
own. Without seccomp (macOS, other processors), Python's audit hook refuses these operations, and foreign functions (ctypes)
can evade it. Windows has none of these layers, so programs are refused there.

Differences from the guard of `code_eval`, which lm-evaluation-harness uses: `code_eval` disables `os.getcwd`, `os.mkdir`
and similar functions, which work here inside the folder, and it sets no limit on memory (here 1 GiB). Strings have the same
hash in every run here. Site packages such as numpy can be imported in both.

Example:
    >>> run_program("assert 1 + 1 == 2").passed
    True
    >>> run_program("import os; os._exit(0)").fault
    'exit'
"""

from __future__ import annotations

import ast
import contextlib
import functools
import marshal
import os
import secrets
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from harness.errors import UserError

Fault = Literal[
    "exception", "exit", "timeout", "memory", "disk", "files", "network", "processes", "signals", "stdin", "crash"
]
"""Why a program did not pass: it raised an exception; exited early; exceeded the time; exceeded the memory; exceeded the
disk; accessed files outside its folder; used the network; started processes (or too many threads); sent signals; read
standard input; crashed the interpreter."""

LAYERS = ("namespaces", "landlock", "seccomp")
"""Features of the kernel that are used if it has them."""
START_SECONDS = 60.0
"""Time limit until the first line of the program; only a broken or overloaded machine needs longer."""
REPORT_BYTES = 1 << 16
"""Bytes after which the parent stops reading: a real report is much shorter."""
_OWN_FOLDER = str(Path(__file__).parent)
_SYSTEM = ("/usr", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero")
"""Files and folders that Python's own modules read, besides Python's folders."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of a program."""

    wall_seconds: float = 3.0
    """Measured from the first line; the same limit as in lm-evaluation-harness and by the authors of HumanEval."""
    cpu_seconds: int = 4
    """Processor time of all threads together."""
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Size of a single file."""
    disk_bytes: int = 64 << 20
    """Size of all files together, if the program has a disk in memory."""
    threads: int = 64
    """Threads besides the main thread, if the kernel can count them."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    passed: bool
    """Whether the last statement was executed in time, without an exception."""
    fault: Fault | None = None
    """Why it did not pass."""
    detail: str = ""
    """The fault in one readable line."""
    refused: tuple[str, ...] = ()
    """Kinds of operations that were refused, whether or not the program passed."""


def run_program(source: str, limits: Limits = Limits()) -> Outcome:
    """Runs a Python program and returns whether it reached its end.

    Blocks while the program runs; to use all cores, call it from one thread per core.

    Args:
        source: The source code of the program.
        limits: Its resource limits.

    Raises:
        UserError: The process could not be started, or failed before the program's first line.

    Example:
        >>> run_program("while True: pass", Limits(wall_seconds=0.5)).fault
        'timeout'
    """
    return _run(source, limits)[0]


@functools.cache
def protections() -> dict[str, str]:
    """The protections that are active on this machine: aspect to description.

    Raises:
        UserError: The process could not be started.

    Example:
        >>> sorted(protections())
        ['cpu', 'file size', 'files', 'folder', 'memory', 'network', 'processes', 'threads']
    """
    return _run("pass", Limits())[1]


def _run(source: str, limits: Limits) -> tuple[Outcome, dict[str, str]]:
    """Runs a program; returns the outcome and the protections that were active."""
    if os.name != "posix":
        raise UserError(
            "generated programs cannot be run on this system: it has no way to restrict them",
            hint="use Linux, WSL or macOS",
        )
    question = secrets.token_bytes(16)
    temporary = tempfile.TemporaryDirectory(prefix="harness-guard-", ignore_cleanup_errors=True)
    with temporary as folder, _child(folder) as child:
        exchange = _Exchange(child, _job(source, folder, limits) + question)
        exchange.run(limits.wall_seconds)
    return _outcome(exchange, question, limits.wall_seconds), exchange.protections


def _job(source: str, folder: str, limits: Limits) -> bytes:
    """The job in the form that the child reads: its length, then its content."""
    packages = list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    job = {
        **asdict(limits),
        "source": source,
        "folder": folder,
        "own_folder": _OWN_FOLDER,
        "parent": os.getpid(),
        "packages": packages,
        "readable": [sys.base_prefix, sys.base_exec_prefix, *packages, *_SYSTEM],
        "descriptors": [10 + number for number in _two_distinct(54)],
        "layers": LAYERS,
    }
    content = marshal.dumps(job)
    return len(content).to_bytes(8, "little") + content


def _two_distinct(count: int) -> tuple[int, int]:
    """Two different random numbers below `count`."""
    first = secrets.randbelow(count)
    return first, (first + 1 + secrets.randbelow(count - 1)) % count


@contextlib.contextmanager
def _child(folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the child process, and kills it with its process group at the end, whatever happens."""
    # A bare interpreter: no site packages, no user folders, no other environment variables, and constant string hashes.
    # `child` and `kernel` are found after the standard library, and forgotten before the program starts.
    start = f"import sys; sys.path.append({_OWN_FOLDER!r}); import child, kernel; child.main(kernel.lock_in)"
    environment = {
        **{"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
        **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
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
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


@dataclass
class _Exchange:
    """The messages between parent and child."""

    process: subprocess.Popen[bytes]
    message: bytes
    """The job and the question, which are sent to the child."""
    received: bytearray = field(default_factory=bytearray)
    started: bool = False
    """Whether the child is ready and the program has started."""
    in_time: bool = True
    protections: dict[str, str] = field(default_factory=dict)

    def run(self, wall_seconds: float) -> None:
        """Sends the message and reads the answers, until the child has ended or the time is over."""
        assert self.process.stdin is not None and self.process.stdout is not None
        to_child, from_child = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(to_child, False)
        unsent = memoryview(self.message)
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(to_child, selectors.EVENT_WRITE)
            selector.register(from_child, selectors.EVENT_READ)
            while len(self.received) <= REPORT_BYTES:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    self.in_time = False
                    return
                for key, _ in ready:
                    if key.fd == to_child:
                        try:
                            unsent = unsent[os.write(to_child, unsent) :]
                        except BrokenPipeError:
                            unsent = unsent[:0]
                        if not unsent:
                            selector.unregister(to_child)
                        continue
                    part = os.read(from_child, 4096)
                    if not part:  # it has ended, or has closed its side of the pipe and goes on running
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            self.process.wait(max(0.0, deadline - time.monotonic()))
                        self.in_time = self.process.returncode is not None
                        return
                    self.received += part
                if not self.started and self.received.startswith(b"ready ") and b"\n" in self.received:
                    self.started = True
                    self.protections = ast.literal_eval(self.received.split(b"\n", 1)[0][6:].decode())
                    deadline = time.monotonic() + wall_seconds


def _outcome(exchange: _Exchange, question: bytes, wall_seconds: float) -> Outcome:
    if not exchange.started:
        lines_received = exchange.received.decode(errors="replace").strip().splitlines()
        reason = lines_received[-1] if lines_received else f"exit code {exchange.process.returncode}"
        raise UserError(
            f"the process for a generated program did not start: {reason}",
            hint="for more, run `python -c \"from harness.sandbox.run import run_program; print(run_program('pass'))\"`",
        )
    # The answer can contain a line break, so it is searched for before the report is split into lines.
    passed = b"done " + bytes(255 - byte for byte in question) + b"\n" in exchange.received
    lines = [line.decode(errors="replace").partition(" ") for line in bytes(exchange.received).split(b"\n")[1:]]
    refused = tuple(dict.fromkeys(rest for word, _, rest in lines if word == "refused" and rest in _KINDS))
    if passed:
        return Outcome(passed=True, refused=refused)
    fault, detail = _fault(exchange, wall_seconds, [rest for word, _, rest in lines if word == "fault"])
    if refused and fault in ("exception", "files", "exit"):
        return Outcome(False, _KINDS[refused[0]], detail, refused)
    return Outcome(False, fault, detail, refused)


def _fault(exchange: _Exchange, wall_seconds: float, reported: list[str]) -> tuple[Fault, str]:
    """The fault of a program that did not pass, and its description."""
    code = exchange.process.returncode
    if not exchange.in_time:
        return "timeout", f"not done after {wall_seconds:g} seconds"
    if reported and (kind := reported[-1].partition(" ")[0]) in _KINDS:
        return _KINDS[kind], reported[-1].partition(" ")[2]
    if code == -getattr(signal, "SIGXCPU", 0):
        return "timeout", "out of processor time"
    if code is not None and code < 0 and exchange.in_time and len(exchange.received) <= REPORT_BYTES:
        return "crash", f"ended by {signal.Signals(-code).name}"
    return "exit", "exited before the last statement"


_KINDS: dict[str, Fault] = {kind: kind for kind in get_args(Fault)}
