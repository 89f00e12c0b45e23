"""Runs a program that a model wrote: alone, without network, within limits, and thrown away afterwards.

Each program gets a fresh Python process (`harness.sandbox.child`) that locks itself in (`harness.sandbox.kernel`) before the
program's first line.

Covered, with the layer that does it (`protections()` says which of them hold on this machine):
- network: a network namespace without devices, and no sockets (seccomp);
- processes: the program is one process and can start no other, so no fork bomb, no shell, no daemon (seccomp); threads are
  counted; it is in a session of its own, is killed with its process group, and dies when the harness does;
- signals to, tracing of, and limits or priorities for other processes (seccomp, Landlock);
- files: written in a temporary folder alone, which is a small disk in memory where the kernel allows (mount namespace), and
  read there and in Python's own folders alone (Landlock); no owner, mode or time of any file is changed (seccomp);
- memory, CPU time, size of a file, open files, core dumps (rlimits), and wall time (the parent's clock, from the first line on);
- what it prints is thrown away; standard input raises; the environment holds nothing of yours;
- leaving early, however it is done, is no pass: the program has passed when the parent's question, sent through a
  pipe, is answered after the last statement.

Not covered: this is no sandbox against somebody who means harm. The kernel is shared, and a hole in it is a hole here. A program
written to deceive this very module can give the answer itself: it runs in the same process, and nothing in a process can
be kept from it. It can measure time, fill the processor for some seconds, and see names and sizes that system calls tell.
Where the kernel has no Landlock, it can read files, and can write none, not even of its own; where there is no seccomp (macOS,
other processors), Python's audit hook refuses what it sees, and foreign functions get past it; Windows has none of this
and is refused.

Differences from the guard of `code_eval` (what lm-evaluation-harness uses): that one disarms `os.getcwd`, `os.mkdir` and
the like, which here work in the folder; it sets no limit on memory (here 1 GiB). The strings hash alike in every run here.
Site packages (numpy) can be imported, as there.

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
"""Why a program did not pass: it raised; left early; took too long; asked for too much memory, or disk; touched files that
are not its own; reached for the network; for other processes (or too many threads); sent signals; read its input; broke
the interpreter."""

LAYERS = ("namespaces", "landlock", "seccomp")
"""What is asked of the kernel, where it has it."""
START_SECONDS = 60.0
"""Until the program's first line; only a broken or overloaded machine takes so long."""
REPORT_BYTES = 1 << 16
"""What a program may send in place of its report before nobody listens any more."""
_HERE = str(Path(__file__).parent)
_SYSTEM = ("/usr", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero")
"""What Python's own modules read, besides its folders."""


@dataclass(frozen=True)
class Limits:
    """What a program may use up."""

    wall_seconds: float = 3.0
    """From its first line on; as much as lm-evaluation-harness and HumanEval's authors give."""
    cpu_seconds: int = 4
    """Processor time of all its threads."""
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Size of any one file."""
    disk_bytes: int = 64 << 20
    """Of all files, where it has a disk of its own."""
    threads: int = 64
    """Beside the main one, where they can be counted."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    passed: bool
    """Whether its last statement ran, without an exception, in time."""
    fault: Fault | None = None
    detail: str = ""
    """One line for people."""
    refused: tuple[str, ...] = ()
    """Kinds of what it tried and was refused, passed or not."""


def run_program(source: str, limits: Limits = Limits()) -> Outcome:
    """Runs a Python program and says whether it came to its end.

    Blocks while it runs; call it from as many threads as there are cores.

    Raises:
        UserError: No process could be started, or it did not come to the program.

    Example:
        >>> run_program("while True: pass", Limits(wall_seconds=0.5)).fault
        'timeout'
    """
    return _run(source, limits)[0]


@functools.cache
def protections() -> dict[str, str]:
    """What holds a program in on this machine, by what it is held off.

    Example:
        >>> sorted(protections())
        ['cpu', 'file size', 'files', 'folder', 'memory', 'network', 'processes', 'threads']
    """
    return _run("pass", Limits())[1]


def _run(source: str, limits: Limits) -> tuple[Outcome, dict[str, str]]:
    """One program, and the protections that it ran under."""
    if os.name != "posix":
        raise UserError(
            "programs are not run on this system: nothing could hold them in", hint="use Linux, WSL or macOS"
        )
    question = secrets.token_bytes(16)
    rubbish = tempfile.TemporaryDirectory(prefix="harness-guard-", ignore_cleanup_errors=True)
    with rubbish as folder, _child(folder) as child:
        talk = _Talk(child, _letter(source, folder, limits) + question)
        talk.hold(limits.wall_seconds)
    return _verdict(talk, question, limits.wall_seconds), talk.protections


def _letter(source: str, folder: str, limits: Limits) -> bytes:
    """The job as the child reads it, length first."""
    packages = list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    job = {
        **asdict(limits),
        "source": source,
        "folder": folder,
        "here": _HERE,
        "parent": os.getpid(),
        "packages": packages,
        "readable": [sys.base_prefix, sys.base_exec_prefix, *packages, *_SYSTEM],
        "descriptors": [10 + number for number in _two_of(54)],
        "layers": LAYERS,
    }
    letter = marshal.dumps(job)
    return len(letter).to_bytes(8, "little") + letter


def _two_of(count: int) -> tuple[int, int]:
    first = secrets.randbelow(count)
    return first, (first + 1 + secrets.randbelow(count - 1)) % count


@contextlib.contextmanager
def _child(folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which is gone with its group afterwards, whatever happens."""
    # A bare interpreter: no site, no user's folders, no environment but this. Hashes that do not change from run to run.
    start = f"import sys; sys.path.append({_HERE!r}); import child, kernel; child.main(kernel.lock_in)"
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
        raise UserError(f"no process could be started for a program: {error.strerror}") from error
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
class _Talk:
    """What goes to and fro between parent and child."""

    process: subprocess.Popen[bytes]
    letter: bytes
    heard: bytearray = field(default_factory=bytearray)
    started: bool = False
    in_time: bool = True
    protections: dict[str, str] = field(default_factory=dict)

    def hold(self, wall_seconds: float) -> None:
        """Sends the letter and listens until the child is gone or its time is up."""
        assert self.process.stdin is not None and self.process.stdout is not None
        to_child, from_child = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(to_child, False)
        unsent = memoryview(self.letter)
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(to_child, selectors.EVENT_WRITE)
            selector.register(from_child, selectors.EVENT_READ)
            while len(self.heard) <= REPORT_BYTES:
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
                    if not part:  # it is gone, or has closed its side to run on unheard
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            self.process.wait(max(0.0, deadline - time.monotonic()))
                        self.in_time = self.process.returncode is not None
                        return
                    self.heard += part
                if not self.started and self.heard.startswith(b"ready ") and b"\n" in self.heard:
                    self.started = True
                    self.protections = ast.literal_eval(self.heard.split(b"\n", 1)[0][6:].decode())
                    deadline = time.monotonic() + wall_seconds


def _verdict(talk: _Talk, question: bytes, wall_seconds: float) -> Outcome:
    if not talk.started:
        said = talk.heard.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"the process for a program did not start: {said[-1] if said else f'code {talk.process.returncode}'}",
            hint="run one by hand: `python -c \"from harness.sandbox.run import run_program; print(run_program('pass'))\"`",
        )
    # A line end may be one of the answer's bytes: it is looked for whole, before the lines are.
    passed = b"done " + bytes(255 - byte for byte in question) + b"\n" in talk.heard
    lines = [line.decode(errors="replace").partition(" ") for line in bytes(talk.heard).split(b"\n")[1:]]
    refused = tuple(dict.fromkeys(rest for word, _, rest in lines if word == "refused" and rest in _KINDS))
    if passed:
        return Outcome(passed=True, refused=refused)
    fault, detail = _fault(talk, wall_seconds, [rest for word, _, rest in lines if word == "fault"])
    if refused and fault in ("exception", "files", "exit"):
        return Outcome(False, _KINDS[refused[0]], detail, refused)
    return Outcome(False, fault, detail, refused)


def _fault(talk: _Talk, wall_seconds: float, said: list[str]) -> tuple[Fault, str]:
    code = talk.process.returncode
    if not talk.in_time:
        return "timeout", f"not done after {wall_seconds:g} seconds"
    if said and (kind := said[-1].partition(" ")[0]) in _KINDS:
        return _KINDS[kind], said[-1].partition(" ")[2]
    if code == -getattr(signal, "SIGXCPU", 0):
        return "timeout", "out of processor time"
    if code is not None and code < 0 and talk.in_time and len(talk.heard) <= REPORT_BYTES:
        return "crash", f"ended by {signal.Signals(-code).name}"
    return "exit", "left before its last statement"


_KINDS: dict[str, Fault] = {kind: kind for kind in get_args(Fault)}
