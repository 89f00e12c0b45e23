"""Processor time used and waited for, against fake counters with known values and a real busy neighbour."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from harness.models.processor import ProcessorMeter, ProcessorUse


def write(tasks: Path, **waited: int) -> None:
    """Writes the kernel's counters: nanoseconds run, nanoseconds waited, time slices."""
    for thread, nanoseconds in waited.items():
        (tasks / thread).mkdir(parents=True, exist_ok=True)
        (tasks / thread / "schedstat").write_text(f"123456 {nanoseconds} 7\n")


def test_pieces_of_work_add_up_and_what_lies_between_them_does_not_count(tmp_path: Path) -> None:
    cpu = [0.0]
    meter = ProcessorMeter(lambda: cpu[0], tmp_path)
    write(tmp_path, t1=10**9, t2=0)
    meter.begin()
    cpu[0] = 3.0
    write(tmp_path, t1=2 * 10**9, t2=5 * 10**8, t3=5 * 10**8)  # a thread that began meanwhile counts whole
    meter.end()
    cpu[0] = 100.0
    write(tmp_path, t1=9 * 10**9)
    meter.begin()
    cpu[0] = 103.0
    meter.end()
    assert meter.use == ProcessorUse(6.0, 2.0)
    assert meter.use.waited_share == 0.25


def test_a_system_without_the_counters_is_unknown_not_quiet(tmp_path: Path) -> None:
    for tasks in (tmp_path / "missing", tmp_path):
        (tmp_path / "t1").mkdir(exist_ok=True)  # a thread without counters
        meter = ProcessorMeter(lambda: 1.0, tasks)
        meter.begin()
        meter.end()
        assert meter.use.waited_seconds is meter.use.waited_share is None


def test_work_that_never_ran_waited_for_nothing() -> None:
    assert ProcessorMeter().use.waited_share == 0.0


def _spin(seconds: float) -> float:
    """Works for so many seconds of the wall clock; returns the share of waiting."""
    meter = ProcessorMeter()
    meter.begin()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    meter.end()
    share = meter.use.waited_share
    assert share is not None
    return share


def _on_one_processor(seconds: float, processor: int, shares: "multiprocessing.Queue[float]") -> None:
    os.sched_setaffinity(0, {processor})
    shares.put(_spin(seconds))


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="the kernel counts no waiting")
def test_three_processes_on_one_processor_wait_two_thirds_of_their_time() -> None:
    context = multiprocessing.get_context("fork")
    shares: multiprocessing.Queue[float] = context.Queue()
    processor = min(os.sched_getaffinity(0))
    neighbours = [context.Process(target=_on_one_processor, args=(0.6, processor, shares)) for _ in range(3)]
    for neighbour in neighbours:
        neighbour.start()
    found = [shares.get(timeout=30) for _ in neighbours]
    for neighbour in neighbours:
        neighbour.join()
    assert sum(found) / 3 > 0.4  # two thirds, less what they did not run at the same time
