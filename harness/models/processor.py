"""Measures how much processor time a piece of work used, and how long it waited for processors that others used.

On Linux the kernel counts, for every thread, the nanoseconds that it ran and that it was ready to run but had no processor
(`/proc/self/task/*/schedstat`). The share of waiting is near zero on a quiet machine and a third if one other busy process
competes with two threads for two processors. Work that other machines of the same host take away (steal) is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class ProcessorUse:
    """Processor time of all threads of this process."""

    cpu_seconds: float = 0.0
    waited_seconds: float | None = 0.0
    """Time that threads were ready to run but had no processor; None where the kernel does not count it."""

    @property
    def waited_share(self) -> float | None:
        """Share of the time that threads wanted to run in which they waited; None where it is not counted."""
        if self.waited_seconds is None:
            return None
        wanted = self.cpu_seconds + self.waited_seconds
        return self.waited_seconds / wanted if wanted > 0 else 0.0


class ProcessorMeter:
    """Adds up the processor time of several pieces of work.

    Args:
        cpu_clock: CPU seconds of the process so far.
        tasks: Folder of the kernel's counters of each thread; tests give a fake.

    Example:
        >>> meter = ProcessorMeter()
        >>> meter.begin()
        >>> total = sum(range(1_000_000))
        >>> meter.end()
        >>> meter.use.cpu_seconds > 0
        True
    """

    def __init__(self, cpu_clock: Callable[[], float] = time.process_time, tasks: Path = _TASKS) -> None:
        self._cpu_clock = cpu_clock
        self._tasks = tasks
        self._cpu_began = 0.0
        self._waits_began: dict[str, int] | None = None
        self.use = ProcessorUse()

    def begin(self) -> None:
        """Starts a piece of work; read the wall clock after this call."""
        self._waits_began = self._waits()
        self._cpu_began = self._cpu_clock()

    def end(self) -> None:
        """Ends a piece of work; read the wall clock before this call."""
        cpu = self._cpu_clock() - self._cpu_began
        waits, began, waited = self._waits(), self._waits_began, self.use.waited_seconds
        if waits is None or began is None or waited is None:
            waited = None
        else:
            waited += sum(count - began.get(thread, 0) for thread, count in waits.items()) / 1e9
        self.use = ProcessorUse(self.use.cpu_seconds + cpu, waited)

    def _waits(self) -> dict[str, int] | None:
        """Nanoseconds that each thread has waited so far; None where the kernel does not count them."""
        waits = {}
        try:
            for thread in self._tasks.iterdir():
                try:
                    waits[thread.name] = int((thread / "schedstat").read_text().split()[1])
                except FileNotFoundError:
                    if not thread.exists():  # it ended since the folder was listed
                        continue
                    return None
        except (OSError, IndexError, ValueError):
            return None
        return waits or None
