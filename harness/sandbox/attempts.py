"""Chooses when generated programs run: as many at once as there are processors, and one alone that ran out of time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from harness.sandbox.processors import processors
from harness.sandbox.run import LIMITS, Limits, Outcome, run_program


class Places:
    """Places for programs that run at the same time; a program can ask for all of them.

    Args:
        count: The number of places.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._waiting_for_all = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Waits for a place, and holds it. Who waits for all places goes first."""
        with self._hold(1):
            yield

    @contextlib.contextmanager
    def all(self) -> Iterator[None]:
        """Waits until no other program runs, and lets none start."""
        with self._changed:
            self._waiting_for_all += 1
        try:
            with self._hold(self.count):
                yield
        finally:
            with self._changed:
                self._waiting_for_all -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def _hold(self, places: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= places and (places == self.count or not self._waiting_for_all))
            self._free -= places
        try:
            yield
        finally:
            with self._changed:
                self._free += places
                self._changed.notify_all()


PLACES = Places(processors())


def judge(source: str, tests: str = "", limits: Limits = LIMITS, *, given: str = "") -> Outcome:
    """Runs a program and its tests; one that runs out of time is tried again while no other program runs.

    Args:
        source: The source code of the program.
        tests: Source code that runs after the program, in a process of its own.
        limits: Resource limits.
        given: Beginning of the program that the task wrote (`run_program`).

    Example:
        >>> judge("def add(a, b): return a + b", "assert add(2, 3) == 5").passed
        True
    """
    with PLACES.one():
        outcome = run_program(source, tests, limits, given=given)
    if outcome.fault != "timeout":
        return outcome
    with PLACES.all():
        return run_program(source, tests, limits, given=given)
