"""Notices that a child hangs: it has reported nothing, and done nothing, for a long time.

A child that waits for something that never comes uses no processor time. One that computes may report nothing for long: a
step of a large model on a CPU, or a batch of long answers, takes up to an hour. So a child that computes gets more time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from harness.user_code import seconds_from

HANG_VARIABLE = "HARNESS_HANG_SECONDS"
"""Environment variable with the time that a child may be silent and idle."""
IDLE_SECONDS = 600.0
_BUSY = 36
"""A child that computes may be silent for this many times longer."""
_STEPS, _LEAST_SHARE = 60, 0.01
"""Checks within the time limit, and the least share of a processor that counts as work."""


def idle_seconds() -> float:
    """The time that a child may be silent and idle.

    Raises:
        UserError: The environment variable is not a number above zero.
    """
    return seconds_from(HANG_VARIABLE, IDLE_SECONDS)


class Watchdog:
    """Watches one child process.

    Args:
        child: Its process id.
        limit: Seconds for which it may be silent and idle.
    """

    def __init__(self, child: int, limit: float) -> None:
        self.step = limit / _STEPS
        """Seconds between two checks."""
        self.verdict: str | None = None
        """How it hung, if it did."""
        self._child, self._limit = child, limit
        self._silent = self._idle = self._used = 0.0

    def heard(self) -> None:
        """The child has reported something."""
        self._silent = self._idle = 0.0

    def hangs(self) -> bool:
        """Whether the child hangs; to be called after each `step` without a report.

        Steps are counted, not the clock: the time for which all processes were stopped together does not count.
        """
        used = processor_seconds(self._child)
        works, self._used = abs(used - self._used) > _LEAST_SHARE * self.step, used
        self._silent += self.step
        self._idle = 0.0 if works else self._idle + self.step
        if self._idle >= self._limit:
            self.verdict = f"for {self._limit:g} s it reported nothing and used no processor time"
        elif self._silent >= self._limit * _BUSY:
            self.verdict = f"for {self._limit * _BUSY:g} s it reported nothing"
        return self.verdict is not None


def processor_seconds(process: int) -> float:
    """Processor seconds that a process and its living descendants have used."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since
            fields = stat.read_text().rpartition(")")[2].split()
            used[int(stat.parent.name)] = int(fields[11]) + int(fields[12])
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    ticks, waiting = 0, [process]
    while waiting:
        each = waiting.pop()
        ticks += used.get(each, 0)
        waiting += children.get(each, [])
    return ticks / os.sysconf("SC_CLK_TCK")
