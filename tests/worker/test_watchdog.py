"""A child that hangs is ended, and its job fails; one that computes, or reports, is left alone."""

import subprocess
import sys
import threading
import time
from multiprocessing.connection import Pipe
from typing import Any

import pytest

from harness.errors import UserError
from harness.jobs import Advanced, EnvironmentJob
from harness.worker import server as worker
from harness.worker.children import Children, Exited
from harness.worker.server import JobFailed, Server
from harness.worker.watchdog import HANG_VARIABLE, Watchdog, idle_seconds, processor_seconds

JOB = EnvironmentJob("cpu", "auto")


def ran(patch: pytest.MonkeyPatch, job: Any, limit: float) -> tuple[list[Any], Exited]:
    """Runs a job in a child as the server does: the child's messages, and how it ended."""
    patch.setattr(worker, "run_job", job)
    ours, theirs = Pipe()
    exited = Children(theirs, limit, worker._work).run(JOB)
    messages = []
    while ours.poll():
        messages.append(ours.recv())
    return messages, exited


def hang(job: Any, send: Any, further: Any) -> None:
    send(Advanced(1, 2))
    threading.Event().wait()


def spin(job: Any, send: Any, further: Any) -> None:
    while True:
        pass


def spin_below(job: Any, send: Any, further: Any) -> int:
    """Waits for a process of its own that computes."""
    seconds = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    return subprocess.run([sys.executable, "-c", seconds], check=False).returncode


def report(job: Any, send: Any, further: Any) -> int:
    for number in range(12):
        time.sleep(0.1)
        send(Advanced(number, 12))
    return 5


def test_a_child_that_waits_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    messages, exited = ran(monkeypatch, hang, 0.3)
    assert messages == [Advanced(1, 2)]
    assert exited == Exited(-9, "for 0.3 s it reported nothing and used no processor time")


def test_a_child_that_computes_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.worker.watchdog._BUSY", 3)
    _, exited = ran(monkeypatch, spin, 0.3)
    assert exited == Exited(-9, "for 0.9 s it reported nothing")


def test_a_process_below_a_child_counts_as_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    messages, exited = ran(monkeypatch, spin_below, 1.0)
    assert (messages[-1].value, exited) == (0, Exited(0))


def test_a_child_that_reports_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    messages, exited = ran(monkeypatch, report, 1.0)
    assert (len(messages), messages[-1].value, exited) == (13, 5, Exited(0))


def test_the_watchdog_counts_idle_and_silent_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.0] * 59 + [1.0] + [1.0] * 60)
    monkeypatch.setattr("harness.worker.watchdog.processor_seconds", lambda process: next(used))
    watchdog = Watchdog(1, 60)
    assert not any(watchdog.hangs() for _ in range(119)), "it worked after 59 seconds"
    assert watchdog.hangs()
    busy, now = Watchdog(1, 60), iter(range(10_000))
    monkeypatch.setattr("harness.worker.watchdog.processor_seconds", lambda process: next(now))
    assert sum(not busy.hangs() for _ in range(36 * 60)) == 36 * 60 - 1
    assert busy.verdict == "for 2160 s it reported nothing"
    busy.heard()
    assert (busy._silent, busy._idle) == (0, 0)


def test_processor_seconds_are_of_living_processes() -> None:
    before = processor_seconds(1 << 30)
    assert before == 0.0


def test_the_limit_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HANG_VARIABLE, "soon")
    with pytest.raises(UserError, match=f"`{HANG_VARIABLE}` is `soon`"):
        Server()
    monkeypatch.setenv(HANG_VARIABLE, "5")
    assert idle_seconds() == 5.0


def test_a_hung_job_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        def send(self, job: Any) -> None:
            pass

        def recv(self) -> Exited:
            return Exited(-9, "for 600 s it reported nothing and used no processor time")

    server = Server.__new__(Server)
    server._connection = Connection()  # type: ignore[assignment]
    with pytest.raises(JobFailed, match=r"^the process hung: for 600 s it reported nothing") as caught:
        server.run(JOB)
    assert f"set `{HANG_VARIABLE}` for more" in str(caught.value)
