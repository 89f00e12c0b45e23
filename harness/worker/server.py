"""A server process that has imported torch, and forks a child process for each job.

The parent imports no torch. It starts the server once; the server imports torch and transformers and forks a child for every
job. It never starts CUDA: a process that did cannot give the GPU to its children. A child therefore starts in milliseconds, and has its own memory and its own crashes.
Server and child die with their parent, however it ends. A child that has scored waits for the next job of its base if the
job says that `more` follow; a job of another kind ends it first.

    parent ──job──▶ server ──fork──▶ child ──events──▶ parent
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import UserError, brief, is_out_of_memory
from harness.jobs import (
    BenchJob,
    CheckJob,
    DeployJob,
    DescribeJob,
    Done,
    EnvironmentJob,
    Event,
    ExportJob,
    Failed,
    Job,
    MergeJob,
    PlanJob,
    ProbeJob,
    ReachJob,
    RewardFunction,
    RowLengthsJob,
    ScoreJob,
    SourcesJob,
    TrainJob,
    UnpackJob,
)
from harness.storage import DiskFull, disk_full, import_path
from harness.tokens.description import describe_folder
from harness.tokens.training_labels import row_lengths
from harness.user_code import SECONDS_VARIABLE, die_with_parent, limit
from harness.worker.children import Children, Exited
from harness.worker.watchdog import HANG_VARIABLE, idle_seconds

OnEvent = Callable[[Event], None]
_HOLD = "hold"
_SERVE = "from harness.worker.server import serve; serve()"
_STDERR = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's `mallopt`."""
_MODULES = (
    "transformers.models.auto.modeling_auto",
    "accelerate",
    "harness.engine.runner",
    "harness.models.load",
    "torch._inductor.compile_fx",  # most of what bitsandbytes imports
)
_WITH_BITSANDBYTES = ("harness.worker.scoring", "peft.tuners.lora.bnb")
"""Modules that import bitsandbytes, which asks each GPU for its capability: where there is one, only a child imports them."""
_GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Files by which Linux, WSL and AMD's driver show that there are GPUs."""
_WITHOUT_WEIGHTS = (CheckJob, DescribeJob, EnvironmentJob, ProbeJob, RowLengthsJob, SourcesJob, UnpackJob)
"""Jobs that load no model and need none of these modules: importing them takes seconds, and starts CUDA."""


class JobFailed(Exception):
    """A job failed for a reason that concerns it alone (out of memory, a crash): other jobs can still run."""

    def __init__(self, message: str, child_traceback: str = "") -> None:
        super().__init__(message)
        self.child_traceback = child_traceback


class Server:
    """The parent's side of the server. Jobs run one at a time, so two children never share a device.

    Example:
        >>> with Server() as server:  # doctest: +SKIP
        ...     server.run(EnvironmentJob("auto", "auto"))["device"]
        'cpu'
    """

    def __init__(self) -> None:
        self._held: list[int] = []
        self._idle_seconds = idle_seconds()
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # Ctrl-C and other signals to the group are for the parent, which kills the server, also while that is starting
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE, str(theirs.fileno()), str(os.getpid()), str(self._idle_seconds)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,  # stdout belongs to the parent, for data
                env={**os.environ, **_environment()},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._connection = Connection(ours.detach())
        for descriptor in self._held:
            self._send_held(descriptor)

    def run(self, job: Job, on_event: OnEvent = lambda event: None) -> Any:
        """Runs a job in its own child process and returns its result.

        Args:
            job: The job.
            on_event: Receives every event that the child sends before the result.

        Raises:
            UserError: The child failed with an error that the user can fix.
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
            self.close()
            died = JobFailed(f"the worker process died: {_exit_message(self._process.returncode)}")
            self._start()  # the next job needs one
            raise died from error
        if isinstance(result, Done):
            return result.value
        if result is None:
            raise JobFailed(_exit_message(event.code, _users_file(job), event.hung))
        if result.is_users:
            raise (DiskFull if result.disk_full else UserError)(result.error, hint=result.hint)
        raise JobFailed(result.error, result.traceback)

    def hold(self, descriptor: int) -> None:
        """Makes the server and its children keep a file descriptor open: the lock of the run folder they write to."""
        self._held.append(descriptor)
        self._send_held(descriptor)

    def _send_held(self, descriptor: int) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: the next job finds out and starts another one
            self._connection.send(_HOLD)
            send_handle(self._connection, descriptor, self._process.pid)

    def close(self) -> None:
        """Kills the server, and with it the running child."""
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
    """Main function of the server: imports once, then forks a child for every job."""
    die_with_parent(int(sys.argv[2]))
    connection, idle_limit = Connection(int(sys.argv[1])), float(sys.argv[3])
    _import_everything()
    children = Children(connection, idle_limit, _work)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        if job == _HOLD:
            recv_handle(connection)
            continue
        connection.send(children.run(job))


def run_job(job: Job, send: OnEvent, further: Callable[[], ScoreJob | None] = lambda: None) -> Any:
    """Runs a job in this process, as a child does and as a cluster's worker would.

    Args:
        job: The job.
        send: Receives the events.
        further: See `harness.worker.scoring.score`.
    """
    from harness.finetune.training.suitable import why_unsuitable
    from harness.worker import child as children

    if isinstance(job, EnvironmentJob):
        return children.describe_environment(job)
    if isinstance(job, DescribeJob):
        return describe_folder(job.folder, trust_remote_code=job.trust_remote_code)
    if isinstance(job, UnpackJob):
        return children.unpack(job)
    if isinstance(job, RowLengthsJob):
        return row_lengths(job.folder, job.examples, answered=job.answered, trust_remote_code=job.trust_remote_code)
    if isinstance(job, SourcesJob):
        return children.loaded_files(job)
    if isinstance(job, CheckJob):
        return why_unsuitable(job.train, job.start)
    if isinstance(job, TrainJob):
        return children.train(job, send)
    if isinstance(job, MergeJob):
        return children.merge(job)
    if isinstance(job, DeployJob):
        from harness.worker.deployment import deploy

        return deploy(job, send)
    if isinstance(job, ExportJob):
        from harness.worker.exporting import export

        return export(job, send)
    if isinstance(job, ProbeJob):
        from harness.worker.served import probe_server

        return probe_server(job, send)
    if isinstance(job, ScoreJob) and job.variants[0].recipe.base.served is not None:
        from harness.worker.served import score_served

        return score_served(job, send, further)
    if isinstance(job, ScoreJob):
        from harness.worker.scoring import score

        return score(job, send, further)
    if isinstance(job, PlanJob):
        return children.plan(job)
    if isinstance(job, ReachJob):
        return children.reach(job)
    assert isinstance(job, BenchJob)
    from harness.worker.timing import time_variant

    return time_variant(job, send)


def _work(job: Job, send: OnEvent, further: Callable[[], ScoreJob]) -> Done | Failed:
    try:
        if not isinstance(job, _WITHOUT_WEIGHTS):
            _import(_WITH_BITSANDBYTES)
        return Done(run_job(job, send, further))
    except BaseException as error:
        return _failure(error, getattr(job, "output", None))


_DISK_FULL = ("no space left", "file too large", "disk quota exceeded")
"""The system's words for a full disk, in errors of any library."""


def _failure(error: BaseException, output: Path | None = None) -> Failed:
    text = "".join(traceback.format_exception(error))
    if any(words in str(error).lower() for words in _DISK_FULL):
        error = disk_full(output)
    if isinstance(error, UserError):
        return Failed(error.message, error.hint, text, is_users=True, disk_full=isinstance(error, DiskFull))
    if is_out_of_memory(error):
        return Failed("out of memory", None, text, is_users=False)
    return Failed(
        f"{type(error).__name__}: {brief(error)}",
        None,
        text,
        is_users=False,
    )


def _exit_message(code: int, file: Path | None = None, hung: str | None = None) -> str:
    """How a child ended that sent no result.

    Args:
        code: Its exit code; negative: the signal that killed it.
        file: The user's file that the job ran, if it ran one.
        hung: How it hung, if the server ended it for that reason.
    """
    suspect = f", in code of `{file.name}` or below it" if file else ""
    if hung:
        return f"the process hung{suspect}: {hung} (set `{HANG_VARIABLE}` for more)"
    if code == -signal.SIGKILL:
        return "out of memory (the system killed the process)"
    if code == -signal.SIGALRM:
        named = f"`{file.name}`" if file else "a user's code, or an adapter's settings,"
        return f"{named} did not return in time (set `{SECONDS_VARIABLE}` above {limit():g} for more)"
    if code < 0:
        return f"the process was killed by {signal.Signals(-code).name}{suspect}"
    return f"the process ended with code {code}{suspect}"


def _users_file(job: Job) -> Path | None:
    """The user's method file or reward function that a job runs."""
    recipes = [job] if isinstance(job, TrainJob) else []
    for recipe in [*recipes, *(each.recipe for each in getattr(job, "variants", ())), getattr(job, "recipe", None)]:
        method = getattr(recipe, "method", None)
        if method is not None and method.module is None:
            return Path(method.path)
    reward = getattr(job, "reward", None)
    return reward.path if isinstance(reward, RewardFunction) else None


def keep_freed_memory() -> None:
    """Asks glibc to keep freed memory for later allocations.

    Otherwise it returns the pages of large tensors to the system, and every layer has to map and zero them again. Other
    allocators are not changed.
    """
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest value that glibc accepts
        allocator.mallopt(_TRIM_THRESHOLD, 512 << 20)


def _environment() -> dict[str, str]:
    """Variables that keep libraries quiet, have torch look for GPUs without starting CUDA, and imports as in this process."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    return {**import_path(), **quiet, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


def _import_everything() -> None:
    """Imports the slow libraries, which every child needs, and keeps them quiet."""
    keep_freed_memory()
    warnings.filterwarnings("ignore")
    for name in ("bitsandbytes", "torchao", "torch.utils._pytree"):  # for every layer; for kernels of other machines
        logging.getLogger(name).setLevel(logging.ERROR)
    with _cuda_left_alone():
        _import(_MODULES)
    if not _may_have_gpu():
        _import(_WITH_BITSANDBYTES)
    transformers_logging = importlib.import_module("transformers.utils.logging")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def _cuda_left_alone() -> Iterator[None]:
    """Context manager inside which modules find no GPU: torchao would ask it for its capability when it is imported."""
    cuda = importlib.import_module("torch").cuda
    usual = cuda.is_available
    cuda.is_available = lambda: False
    try:
        yield
    finally:
        cuda.is_available = usual


def _may_have_gpu() -> bool:
    """Whether there may be a GPU: where the system shows one, torch is not asked, as it starts CUDA to count parts of one."""
    return any(map(os.path.exists, _GPUS)) or bool(importlib.import_module("torch").cuda.is_available())


def _import(modules: Sequence[str]) -> None:
    """Imports modules, and takes them out of the garbage collection that every load of a base and every training starts."""
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
