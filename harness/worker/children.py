"""The server's side of its children: forks one for each job, forwards its messages, and ends it when it hangs.

A child that has scored may wait for the next job of its base, so that the base is loaded once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe

from harness.jobs import Base, Done, Event, Failed, Job, ScoreJob
from harness.user_code import die_with_parent, end_on_hang
from harness.worker.watchdog import Watchdog

Work = Callable[[Job, Callable[[Event], None], Callable[[], ScoreJob]], Done | Failed]
"""Does a job in the child: receives the job, a function that sends events, and one that waits for the next job."""
_WAITS, _TAKEN = b"waits", b"taken"
"""A child's messages to the server: it has done its job, and waits for another one of the same base; it has received it."""


@dataclass(frozen=True)
class Exited:
    """The child process has ended, or waits for another job.

    Args:
        code: Its exit code, 0 if it waits; negative: the signal that killed it.
        hung: How it hung, if the server ended it for that reason.
    """

    code: int
    hung: str | None = None


@dataclass(frozen=True)
class _Child:
    """A child process, and the server's ends of the pipes to it."""

    process: int
    jobs: Connection
    messages: Connection

    def end(self) -> None:
        """Kills it, and returns when its memory is free."""
        self.jobs.close()
        self.messages.close()
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


class Children:
    """The children of a server: one works, others may wait.

    Args:
        connection: To the parent.
        idle_limit: Seconds for which a child may be silent and idle while it works.
        work: What a child does.
    """

    def __init__(self, connection: Connection, idle_limit: float, work: Work) -> None:
        self._connection, self._idle_limit, self._work = connection, idle_limit, work
        self._waiting: dict[Base, _Child] = {}
        """The children that wait, by the base that each has in memory."""

    def run(self, job: Job) -> Exited:
        """Has a child do a job, and forwards its messages until it ends, waits for another job, or hangs and is ended."""
        base = job.variants[0].recipe.base if isinstance(job, ScoreJob) else None
        if base is None:
            self._end_waiting()
        child = self._hand_over(base, job) if base else None
        child = child or self._fork(job)
        watchdog = Watchdog(child.process, self._idle_limit)
        if self._forward(child.messages, watchdog):
            assert base is not None, "only scoring jobs wait"
            self._waiting[base] = child
            return Exited(0)
        child.jobs.close()
        child.messages.close()
        if watchdog.verdict:
            os.kill(child.process, signal.SIGKILL)
        _, status = os.waitpid(child.process, 0)
        return Exited(os.waitstatus_to_exitcode(status), watchdog.verdict)

    def _end_waiting(self) -> None:
        """Ends the children that wait; afterwards their memory is free."""
        while self._waiting:
            self._waiting.popitem()[1].end()

    def _hand_over(self, base: Base, job: Job) -> _Child | None:
        """Gives a job to the child that waits with its base; None if there is none, or if it has died since."""
        child = self._waiting.pop(base, None)
        if child is None:
            return None
        with suppress(EOFError, OSError):
            child.jobs.send(job)
            if child.messages.poll(self._idle_limit) and child.messages.recv_bytes() == _TAKEN:
                return child
        child.end()
        return None

    def _fork(self, job: Job) -> _Child:
        """Starts a child with its first job."""
        job_reader, jobs = Pipe(duplex=False)
        messages, writer = Pipe(duplex=False)
        server = os.getpid()
        process = os.fork()
        if process == 0:
            die_with_parent(server)
            for theirs in (self._connection, jobs, messages):
                theirs.close()
            end_on_hang()
            os.environ["TOKENIZERS_PARALLELISM"] = "true"  # its threads start in this process, which does not fork
            with suppress(OSError):  # the server has ended, and the kernel ends this process next
                writer.send(self._work(job, writer.send, lambda: _next_job(job_reader, writer)))
            os._exit(0)
        job_reader.close()
        writer.close()
        return _Child(process, jobs, messages)

    def _forward(self, messages: Connection, watchdog: Watchdog) -> bool:
        """Forwards a child's messages until it ends or hangs; a message that its death cut off is not forwarded.

        Returns:
            Whether it waits for another job.
        """
        with suppress(EOFError, OSError):
            while True:
                while not messages.poll(watchdog.step):
                    if watchdog.hangs():
                        return False
                message = messages.recv_bytes()
                if message == _WAITS:
                    return True
                self._connection.send_bytes(message)
                watchdog.heard()
        return False


def _next_job(jobs: Connection, messages: Connection) -> ScoreJob:
    """Reports in the child that its job is done, and waits for the next one."""
    try:
        messages.send(Done())
        messages.send_bytes(_WAITS)
        job: ScoreJob = jobs.recv()
        messages.send_bytes(_TAKEN)
    except (EOFError, OSError):  # the server has ended: its pipes close before the kernel ends this process
        os._exit(0)
    return job
