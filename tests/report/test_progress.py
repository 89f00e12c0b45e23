"""The progress lines on stderr: one per stage, none while latencies are timed, complete after an exception."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from harness.report import progress as progress_module
from harness.report.progress import Progress, TerminalProgress


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def terminal(*, tty: bool = True, width: int = 100) -> tuple[TerminalProgress, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=tty, width=width, color_system=None, highlight=False, _environ={})
    return TerminalProgress(console, clock), stream, clock


def visible(stream: io.StringIO) -> list[str]:
    """Returns what a terminal finally shows: the text of each line after its last erasure."""
    assert set(re.findall(r"\x1b\[[\d;?]*[a-zA-Z]", stream.getvalue())) <= {"\x1b[2K"}
    return [re.split(r"\r\x1b\[2K", line)[-1] for line in stream.getvalue().split("\n")]


def test_a_stage_on_a_terminal_is_one_line_with_bar_note_and_time() -> None:
    progress, stream, clock = terminal()
    progress.start("Train", "qlora", total=250)
    for done in range(10, 251, 10):
        clock.seconds += 1
        progress.advance(done, f"loss {done}")
    progress.finish("loss 1.12")
    assert visible(stream) == ["Train  qlora  ━━━━━━━━━━━━━━━━━━━━━━ 250/250  loss 1.12  0m 25s", ""]


def test_the_remaining_time_is_estimated_from_the_speed_so_far() -> None:
    progress, stream, clock = terminal()
    progress.start("Eval", "qlora mmlu", total=500)
    clock.seconds += 62
    progress.advance(312, "acc 0.43")
    assert visible(stream)[-1].endswith("312/500  acc 0.43  0m 37s left")


def test_a_fast_stage_is_not_drawn_more_than_ten_times_a_second() -> None:
    progress, stream, clock = terminal()
    progress.start("Eval", "base", total=10_000)
    for done in range(10_000):
        clock.seconds += 0.0001
        progress.advance(done)
    assert stream.getvalue().count("Eval") <= 12


def test_without_a_terminal_there_is_a_line_at_the_start_every_30_seconds_and_at_the_end() -> None:
    progress, stream, clock = terminal(tty=False)
    progress.start("Train", "lora", total=100)
    for done in range(1, 71):
        clock.seconds += 1
        progress.advance(done, "loss 2.5")
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "Train  lora",
        "Train  lora  30/100  loss 2.5  1m 10s left",
        "Train  lora  60/100  loss 2.5  0m 40s left",
        "Train  lora  70/100  loss 2.5  1m 10s",
    ]


@pytest.mark.parametrize("tty", [True, False])
def test_a_line_that_stays_comes_above_the_line_of_the_stage(tty: bool) -> None:
    progress, stream, _ = terminal(tty=tty)
    progress.start("Time", "lora", total=10)
    progress.say("Note", "the machine drifted")
    progress.finish()
    text = visible(stream)
    assert text[-3] == "Note   the machine drifted" and text[-2].startswith("Time   lora")


def test_no_thread_draws() -> None:
    threads = threading.active_count()
    progress, _, _ = terminal()
    progress.start("Load", "base")
    progress.advance(1)
    assert threading.active_count() == threads


def test_a_line_shown_during_a_stage_is_above_it() -> None:
    progress, stream, _ = terminal()
    progress.start("Train", "lora", total=4)
    progress.say("Plan", "3 variants × 7 tasks")
    progress.finish()
    assert visible(stream)[0] == "Plan   3 variants × 7 tasks"
    assert visible(stream)[1].startswith("Train  lora")


def test_an_exception_leaves_the_cursor_on_a_new_line() -> None:
    progress, stream, _ = terminal()
    with pytest.raises(KeyboardInterrupt), progress:
        progress.start("Train", "lora", total=4)
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\n")
    assert "\x1b[?25l" not in stream.getvalue()


def test_a_narrow_terminal_gets_a_line_that_does_not_wrap() -> None:
    progress, stream, _ = terminal(width=30)
    progress.start("Eval", "a-variant-with-a-long-name mini_translation", total=4)
    assert all(len(line) < 30 for line in visible(stream))


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            120,
            "Train  qlora:rank=16  ━━━━━━━━━━━─────────── 120/240  loss 1.31 · 5.2k tok/s · 2.1 GB  1m 02s left",
        ),
        (80, "Train  qlora:rank=16  ━━━━──── 120/240  loss 1.31 · 5.2k tok/s  1m 02s left"),
        (60, "Train  qlora:rank=16  ━━━━──── 120/240  loss 1.31  1m 02s left"[:59]),
    ],
)
def test_bar_and_note_are_shortened_before_the_remaining_time(width: int, line: str) -> None:
    progress, stream, clock = terminal(width=width)
    progress.start("Train", "qlora:rank=16", total=240)
    clock.seconds += 62
    progress.advance(120, "loss 1.31 · 5.2k tok/s · 2.1 GB")
    assert visible(stream)[-1] == line


def test_markup_and_control_characters_in_names_are_plain_text() -> None:
    progress, stream, _ = terminal()
    progress.start("Eval", "[red]x[/red]\x1b[2J", total=4)
    assert "[red]x[/red]" in visible(stream)[-1]


def test_the_base_class_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    quiet = Progress()
    quiet.say("Plan", "x")
    quiet.start("Train", "lora", 3)
    quiet.advance(1)
    quiet.finish()
    assert capfd.readouterr() == ("", "")


def test_progress_goes_to_stderr_and_stdout_stays_data() -> None:
    code = "from harness.report.progress import TerminalProgress as T\nwith T() as p: p.start('Load', 'base'); p.finish('1.2 s')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["Load   base", "Load   base  1.2 s  0m 00s"]


def test_importing_progress_does_not_import_rich() -> None:
    code = "import sys, harness.report.progress; sys.exit('rich' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_total_may_be_given_later() -> None:
    progress, stream, clock = terminal()
    progress.start("Eval", "base")
    clock.seconds += 1
    progress.advance(3, total=6)
    assert "3/6" in visible(stream)[-1]


def test_the_clock_moves_while_no_event_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_TICKS", 0.01)
    monkeypatch.setattr(progress_module, "QUIET_SECONDS", 0.1)
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    with TerminalProgress(console) as progress:
        progress.start("Start", "tiny")
        time.sleep(1.5)
        progress.finish()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) > 4 and lines[0] == "Start  tiny"


def test_the_time_left_follows_from_the_share_of_the_work() -> None:
    clock = [0.0]
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    progress = TerminalProgress(console, now=lambda: clock[0])
    progress.start("Eval", "base  wikitext", total=12)
    progress.advance(2, total=12, share=0.4)  # of an earlier run
    clock[0] = 40.0
    progress.advance(3, total=12, share=0.8)
    assert "3/12" in console.file.getvalue() and "0m 20s left" in console.file.getvalue()  # type: ignore[attr-defined]
