"""Progress of a run on stderr: one line per stage.

`Progress` is the interface and shows nothing (`--quiet`); `TerminalProgress` draws. `rich.progress` is not used: it hides
the cursor, prints nothing before the end without a terminal, and on a narrow one cuts the count before the note.

Example:
    >>> with TerminalProgress() as progress:  # doctest: +SKIP
    ...     progress.start("Train", "qlora", total=250)
    ...     progress.advance(120, "loss 1.31")
    ...     progress.finish("loss 1.12")
    Train  qlora  ━━━━━━━━━━━━━━━━━━━━━━ 250/250  loss 1.12  2m 57s
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

from harness.report.numbers import clock, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BAR_WIDTH, SHORT_BAR = 22, 8
PART = " · "
"""Separates the parts of a note; the last parts are omitted where there is no room."""
SECONDS_BETWEEN_FRAMES = 0.1
SECONDS_BETWEEN_LINES = 30.0
"""Interval of the lines of a running stage, without a terminal."""


P = ParamSpec("P")
T = TypeVar("T")
SECONDS_BETWEEN_TICKS = 0.5
QUIET_SECONDS = 8.0
"""Longest time without a sign of life: without a terminal, and while a latency is measured."""


def _locked(method: Callable[P, T]) -> Callable[P, T]:
    """Keeps the clock from drawing at the same time."""

    @functools.wraps(method)
    def alone(*arguments: P.args, **options: P.kwargs) -> T:
        with arguments[0]._lock:  # type: ignore[attr-defined]
            return method(*arguments, **options)

    return alone


class Progress:
    """Callbacks of a run; each does nothing by default."""

    def say(self, label: str, text: str) -> None:
        """Prints a line that stays, such as `Plan   train qlora (lora reused from 3 h ago) …`."""

    def start(self, label: str, what: str, total: int | None = None) -> None:
        """Starts a stage: `label` is Load, Train, Eval or Time; `what` names the variant and task."""

    def advance(self, done: int, note: str = "", total: int | None = None, share: float | None = None) -> None:
        """Reports that `done` of `total` units are finished; `note` is short: `loss 1.31`, `acc 0.43`.

        The time left follows from `share`, the part of the work that is done, if the units differ in size.
        """

    def finish(self, note: str = "") -> None:
        """Ends the stage; its line stays, with `note`."""


class TerminalProgress(Progress):
    """Draws stages on stderr: on a terminal one line each, redrawn in place; elsewhere a plain line every 30 seconds.

    As a context manager it has a clock that moves while no event arrives, and ends an open line. An exception leaves no
    hidden cursor or alternate screen.

    Args:
        console: Console to draw on; stderr by default.
        now: Monotonic clock, in seconds.
    """

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._now = now
        self._label: str | None = None
        self._what = self._note = ""
        self._total: int | None = None
        self._share: float | None = None
        self._first: tuple[float, float] | None = None
        """The first share of the stage and when it was known: an earlier run may have done a part."""
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._done = 0
        self._began = self._drawn = 0.0

    def __enter__(self) -> Self:
        threading.Thread(target=self._tick, name="clock", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps the line of an open stage, and moves the cursor to a new line."""
        self._ended.set()
        with self._lock:
            self._end()

    def _tick(self) -> None:
        """Shows that the run lives: nothing stands still for more than 10 s, also while no event arrives."""
        while not self._ended.wait(SECONDS_BETWEEN_TICKS):
            with self._lock:
                quiet = self._now() - self._drawn
                if self._label is not None and quiet >= (1.0 if self._live else QUIET_SECONDS):
                    self._draw()

    def _end(self) -> None:
        if self._label is not None and self._live:
            self._console.print()
        self._label = None

    @_locked
    def say(self, label: str, text: str) -> None:
        """Prints a line that stays, above the line of the stage."""
        from rich.text import Text

        line = Text(f"{label:<5}  ", style="bold") + Text(one_line(text), style="not bold")
        self._clear()
        self._console.print(line, soft_wrap=True)
        if self._label is not None and self._live:
            self._draw()

    @_locked
    def start(self, label: str, what: str, total: int | None = None) -> None:
        """Starts a stage, and ends the previous one if it is open."""
        if self._label is not None:
            self.finish()
        self._label, self._what, self._total = label, one_line(what), total
        self._done, self._note = 0, ""
        self._share = self._first = None
        self._began = self._drawn = self._now()
        self._draw()

    @_locked
    def advance(self, done: int, note: str = "", total: int | None = None, share: float | None = None) -> None:
        """Redraws the line, at most ten times a second; without a terminal, prints one every 30 seconds."""
        if self._label is None:
            return
        self._done, self._note = done, one_line(note) or self._note
        self._total = self._total if total is None else total
        self._share = share
        if share is not None and self._first is None:
            self._first = share, self._now()
        wait = SECONDS_BETWEEN_FRAMES if self._live else SECONDS_BETWEEN_LINES
        if self._now() - self._drawn >= wait:
            self._draw()

    @_locked
    def finish(self, note: str = "") -> None:
        """Ends the stage; its line stays, with `note` or the last note, and the elapsed time."""
        if self._label is None:
            return
        self._note = one_line(note) or self._note
        self._draw(final=True)
        self._label = None

    def _draw(self, *, final: bool = False) -> None:
        self._drawn = self._now()
        self._clear()
        line = self._line(final)
        if self._live:
            line.truncate(self._console.width - 1)  # a full line would wrap and could not be redrawn in place
        self._console.print(line, end="\n" if final or not self._live else "", soft_wrap=True)

    def _clear(self) -> None:
        """Erases the line of the stage on the terminal."""
        if self._live and self._label is not None:
            from rich.control import Control
            from rich.segment import ControlType

            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))

    def _line(self, final: bool) -> Text:
        """Returns the line of the stage; on a narrow terminal, bar and note are shortened before the time is."""
        notes = self._note.split(PART) if self._note else []
        line = self._drawn_line(final, BAR_WIDTH, notes)
        if self._live:
            width = BAR_WIDTH
            while (over := len(line) - self._console.width + 1) > 0 and (width > SHORT_BAR or len(notes) > 1):
                if width > SHORT_BAR:
                    width = max(SHORT_BAR, width - over)
                else:
                    notes.pop()
                line = self._drawn_line(final, width, notes)
        return line

    def _drawn_line(self, final: bool, bar_width: int, notes: list[str]) -> Text:
        from rich.text import Text

        line = Text(f"{self._label:<5}  ", style="bold") + Text(self._what, style="not bold")
        if self._total:
            share = min(1.0, self._done / self._total)
            if self._live:
                full = round(bar_width * share)
                line.append("  ").append("━" * full, style="green").append("─" * (bar_width - full), style="dim")
                line.append(f" {self._done}/{self._total}")
            elif self._done:
                line.append(f"  {self._done}/{self._total}")
        if notes:
            line.append("  " + PART.join(notes))
        elapsed = self._now() - self._began
        if final:
            line.append(f"  {clock(elapsed)}", style="dim")
        elif elapsed >= 1:
            left = self._seconds_left(elapsed)
            line.append(f"  {clock(elapsed)}" if left is None else f"  {clock(left)} left", style="dim")
        return line

    def _seconds_left(self, elapsed: float) -> float | None:
        """The time that the rest of a stage will take at the speed so far; None as long as there is none."""
        if self._share is not None and self._first is not None:
            first, began = self._first
            done, seconds = self._share - first, self._now() - began
            return seconds / done * (1 - self._share) if done > 0 else None
        if self._total and self._done:
            return elapsed / self._done * max(0, self._total - self._done)
        return None
