"""The progress display of a run: one line per stage on stderr.

A run reports to a `Progress`, which shows nothing (`--quiet`); `TerminalProgress` draws it.

Example:
    >>> with TerminalProgress() as progress:  # doctest: +SKIP
    ...     progress.start("Train", "qlora", total=250)
    ...     progress.advance(120, "loss 1.31")
    ...     progress.finish("loss 1.12")
    Train  qlora  ━━━━━━━━━━━━━━━━━━━━━━ 250/250  loss 1.12  2m 57s
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from harness.report.numbers import clock, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BAR_WIDTH, SHORT_BAR = 22, 8
PART = " · "
"""Separator between the parts of a note; the last parts are dropped if the line is too long."""
SECONDS_BETWEEN_FRAMES = 0.1
SECONDS_BETWEEN_LINES = 30.0
"""Without a terminal, a stage prints a line this often."""


class Progress:
    """Receives the progress events of a run; its methods do nothing, subclasses show what they like."""

    def say(self, label: str, text: str) -> None:
        """Shows a permanent line, such as `Plan   train qlora on gsm8k; …`."""

    def start(self, label: str, what: str, total: int | None = None) -> None:
        """Begins a stage: `label` is Start, Train, Eval or Time, for example; `what` names the variant and task."""

    def advance(self, done: int, note: str = "", total: int | None = None) -> None:
        """Reports that `done` of `total` units are done; `note` is short: `loss 1.31`, `acc 0.43`."""

    def finish(self, note: str = "") -> None:
        """Ends the stage; its line stays, with `note`."""

    def pause(self) -> None:
        """Forbids drawing until the stage's `finish` or the next `start`, because it would disturb latency timing."""


class TerminalProgress(Progress):
    """Draws stages on stderr: on a terminal one line each, redrawn in place; elsewhere a plain line every 30 s.

    It draws only within these calls: there is no thread that could disturb timing, and no hidden cursor or alternate screen
    that an exception could leave behind. As a context manager it also ends an unfinished line.

    Args:
        console: Where to draw; stderr by default.
        now: Returns the seconds of a monotonic clock.
    """

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._now = now
        self._label: str | None = None
        self._what = self._note = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._drawn = 0.0
        self._paused = False
        self._waiting: list[Text] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps the line of an unfinished stage and moves the cursor to a new line."""
        self._paused = False
        if self._label is not None and self._live:
            self._console.print()
        self._label = None
        self._flush()

    def say(self, label: str, text: str) -> None:
        """Shows a permanent line; while drawing is paused, the line waits."""
        from rich.text import Text

        self._waiting.append(Text(f"{label:<5}  ", style="bold") + Text(one_line(text), style="not bold"))
        self._flush()

    def start(self, label: str, what: str, total: int | None = None) -> None:
        """Begins a stage; an unfinished stage is finished first."""
        if self._label is not None:
            self.finish()
        self._paused = False
        self._flush()
        self._label, self._what, self._total = label, one_line(what), total
        self._done, self._note = 0, ""
        self._began = self._drawn = self._now()
        self._draw()

    def advance(self, done: int, note: str = "", total: int | None = None) -> None:
        """Redraws the line at most ten times per second; without a terminal, prints a line every 30 s."""
        if self._label is None:
            return
        self._done, self._note = done, one_line(note) or self._note
        self._total = self._total if total is None else total
        wait = SECONDS_BETWEEN_FRAMES if self._live else SECONDS_BETWEEN_LINES
        if not self._paused and self._now() - self._drawn >= wait:
            self._draw()

    def finish(self, note: str = "") -> None:
        """Ends the stage; its line stays, with `note` or the last note, and the elapsed time."""
        if self._label is None:
            return
        self._paused = False
        self._note = one_line(note) or self._note
        self._draw(final=True)
        self._label = None
        self._flush()

    def pause(self) -> None:
        """Draws nothing until the stage's `finish` or the next `start`."""
        self._paused = True

    def _flush(self) -> None:
        """Prints waiting lines above the line of the stage."""
        if self._paused or not self._waiting:
            return
        for line in self._waiting:
            self._clear()
            self._console.print(line, soft_wrap=True)
        self._waiting.clear()
        if self._label is not None and self._live:
            self._draw()

    def _draw(self, *, final: bool = False) -> None:
        self._drawn = self._now()
        self._clear()
        line = self._line(final)
        if self._live:
            line.truncate(self._console.width - 1)  # a line of full width would wrap, and could not be redrawn
        self._console.print(line, end="\n" if final or not self._live else "", soft_wrap=True)

    def _clear(self) -> None:
        """Clears the line of the stage."""
        if self._live and self._label is not None:
            from rich.control import Control
            from rich.segment import ControlType

            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))

    def _line(self, final: bool) -> Text:
        """Makes the line of the stage; if it is wider than the terminal, it shortens the bar and the note, not the time."""
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
        elif self._total and self._done and elapsed >= 1:
            line.append(f"  {clock(elapsed / self._done * max(0, self._total - self._done))} left", style="dim")
        return line
