"""Child processes: a server that has imported torch, and one fork of it for each job.

The parent imports no torch. It starts the server once; the server imports torch, transformers and peft (CUDA untouched) and
forks a child for every job, so that a child starts in milliseconds and its memory and its crashes are its own. Server and
child die with their parent, however it ends.

    parent ──job──▶ server ──fork──▶ child ──events──▶ parent
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import UserError, is_out_of_memory
from harness.jobs import BenchJob, Done, EnvironmentJob, Event, Failed, Job, MergeJob, PlanJob, ScoreJob, TrainJob

OnEvent = Callable[[Event], None]
_HOLD = "hold"
_SERVE = "from harness.worker.server import serve; serve()"
_STDERR = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's `mallopt`."""


@dataclass(frozen=True)
class Exited:
    """The child is gone; a negative code is the signal that ended it."""

    code: int


class JobFailed(Exception):
    """A job that failed for a reason of its own (out of memory, a crash): the others can go on."""

    def __init__(self, message: str, child_traceback: str = "") -> None:
        super().__init__(message)
        self.child_traceback = child_traceback


class Server:
    """The parent's end. Jobs run one at a time: never two children at work on one device.

    Example:
        >>> with Server() as server:  # doctest: +SKIP
        ...     server.run(EnvironmentJob("auto", "auto"))["device"]
        'cpu'
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,  # stdout is the parent's, for data
            env={**os.environ, **_environment()},
        )
        theirs.close()
        self._connection = Connection(ours.detach())

    def run(self, job: Job, on_event: OnEvent = lambda event: None) -> Any:
        """Runs a job in a child of its own and returns its result.

        Args:
            job: What to do.
            on_event: Told everything that comes back before the result.

        Raises:
            UserError: The child met something that the user can mend.
            JobFailed: The child failed or died; the message says how.
        """
        result: Done | Failed | None = None
        try:
            self._connection.send(job)
            while not isinstance(event := self._connection.recv(), Exited):
                if isinstance(event, Done | Failed):
                    result = event
                else:
                    on_event(event)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise JobFailed("the worker process died") from error
        if isinstance(result, Done):
            return result.value
        if result is None:
            raise JobFailed(_death(event.code))
        if result.is_users:
            raise UserError(result.error, hint=result.hint)
        raise JobFailed(result.error, result.traceback)

    def hold(self, descriptor: int) -> None:
        """Has server and children keep a file descriptor open: the lock of the run folder that they write to."""
        self._connection.send(_HOLD)
        send_handle(self._connection, descriptor, self._process.pid)

    def close(self) -> None:
        """Ends the server, and with it the child at work."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve() -> None:
    """The server's main: import once, then fork a child for every job that comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends us
    _die_with_parent(int(sys.argv[2]))
    connection = Connection(int(sys.argv[1]))
    _import_everything()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        if job == _HOLD:
            recv_handle(connection)
            continue
        connection.send(Exited(_run_in_child(job, connection)))


def run_job(job: Job, send: OnEvent) -> Any:
    """Does a job in this process; what a child does, and what a cluster's worker would."""
    from harness.worker import child as children

    if isinstance(job, EnvironmentJob):
        return children.describe_environment(job)
    if isinstance(job, TrainJob):
        return children.train(job, send)
    if isinstance(job, MergeJob):
        return children.merge(job)
    if isinstance(job, ScoreJob):
        return children.score(job, send)
    if isinstance(job, PlanJob):
        return children.plan(job)
    assert isinstance(job, BenchJob)
    return children.time_variant(job)


def _run_in_child(job: Job, connection: Connection) -> int:
    """Passes on what a child says until it is gone; a message torn by its death goes no further than here."""
    reading, writing = Pipe(duplex=False)
    server = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with_parent(server)
        connection.close()
        reading.close()
        os._exit(_work(job, writing))
    writing.close()
    with reading, suppress(EOFError, OSError):
        while True:
            connection.send_bytes(reading.recv_bytes())
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _work(job: Job, connection: Connection) -> int:
    last: Done | Failed
    try:
        last = Done(run_job(job, connection.send))
    except BaseException as error:
        last = _failure(error, getattr(job, "output", None))
    connection.send(last)
    connection.close()
    return 0


_FULL = ("no space left", "file too large", "disk quota exceeded")
"""What the system says of a full disk, in errors of whatever library met it."""


def _failure(error: BaseException, output: Path | None = None) -> Failed:
    text = "".join(traceback.format_exception(error))
    if isinstance(error, UserError):
        return Failed(error.message, error.hint, text, is_users=True)
    if any(said in str(error).lower() for said in _FULL):
        full = "the disk is full" + (f": could not write `{output}`" if output else "")
        return Failed(full, "what is finished is kept: make room, and give the same command again", text, True)
    if is_out_of_memory(error):
        return Failed("out of memory", None, text, is_users=False)
    return Failed(
        f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
        None,
        text,
        is_users=False,
    )


def _death(code: int) -> str:
    if code == -signal.SIGKILL:
        return "out of memory (the system killed the process)"
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with code {code}"


def _die_with_parent(parent: int) -> None:
    """Asks the kernel for SIGKILL when the parent goes (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os._exit(1)


def keep_freed_memory() -> None:
    """Asks glibc to keep what is freed for what is asked next.

    It gives the pages of large tensors back to the system otherwise, and every layer has them zeroed and mapped anew. Other
    allocators go on as they are.
    """
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most it takes
        allocator.mallopt(_TRIM_THRESHOLD, 512 << 20)


def _environment() -> dict[str, str]:
    """Libraries are quiet, and a module is found where this process finds it: a `peft.py` in the working folder is not."""
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    return {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _import_everything() -> None:
    """What every child needs: the slow imports, and quiet libraries."""
    keep_freed_memory()
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it speaks once for every layer and call
    importlib.import_module("harness.worker.child")
    importlib.import_module("peft.tuners.lora.bnb")
    transformers_logging = importlib.import_module("transformers.utils.logging")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
