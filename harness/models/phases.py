"""Clocks of the phases of a job: load, tokenise, train, evaluate, generate, save.

Exactly one clock runs at any moment, so the phases add up to the wall time of the job.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Phases:
    """Measures wall seconds by phase.

    Args:
        first: Phase that begins now.
        clock: Wall clock, in seconds.

    Example:
        >>> ticks = iter([0.0, 3.0, 4.0, 10.0])
        >>> phases = Phases("load", clock=lambda: next(ticks))
        >>> with phases("evaluate"):  # from 3 to 4
        ...     pass
        >>> phases.seconds()  # at 10
        {'load': 9.0, 'evaluate': 1.0}
    """

    def __init__(self, first: str = "load", clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._current, self._since = first, clock()
        self._seconds[first] = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Runs the phase's clock for the work inside; the clock that ran before stands still and goes on afterwards."""
        before = self._current
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def enter(self, phase: str) -> None:
        """Ends the current phase and begins another one."""
        now = self._clock()
        self._seconds[self._current] += now - self._since
        self._current, self._since = phase, now

    def seconds(self) -> dict[str, float]:
        """Returns the wall seconds of each phase so far, in the order in which they began first."""
        self.enter(self._current)
        return dict(self._seconds)
