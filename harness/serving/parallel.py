"""Asks several things at once, in threads that keep no process alive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

AT_ONCE = 16
"""Requests at the same time, unless `--batch-size` says another number."""
_BEAT = 5.0
"""Seconds between two signs of life while nothing is answered."""

_Job = TypeVar("_Job")
_Answer = TypeVar("_Answer")


def in_parallel(
    ask: Callable[[_Job], _Answer], jobs: Sequence[_Job], *, at_once: int, beat: Callable[[], None] = lambda: None
) -> Iterator[tuple[_Job, _Answer]]:
    """Asks several at once, and yields each job with its answer as soon as it is there, in any order.

    Args:
        ask: Answers a job; called in threads.
        jobs: The jobs.
        at_once: Number of threads.
        beat: Called in this thread at least every few seconds.

    Raises:
        Exception: The first error of a job; jobs that were not begun are not begun.
    """
    todo: queue.SimpleQueue[_Job] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[_Job, _Answer | None, BaseException | None]] = queue.SimpleQueue()
    for job in jobs:
        todo.put(job)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            try:
                job = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((job, ask(job), None))
            except BaseException as error:
                done.put((job, None, error))
                return

    for _ in range(min(at_once, len(jobs))):
        threading.Thread(
            target=work, daemon=True
        ).start()  # a daemon: one that waits for a server keeps no process alive
    try:
        for _ in jobs:
            while True:
                try:
                    job, answer, error = done.get(timeout=_BEAT)
                    break
                except queue.Empty:
                    beat()
            if error is not None:
                raise error
            beat()
            yield job, answer  # type: ignore[misc]
    finally:
        ended.set()
