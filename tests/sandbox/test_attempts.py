"""Programs share the processors, and one that ran out of time runs alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.sandbox import attempts
from harness.sandbox.attempts import Places, judge
from harness.sandbox.memory import memory_left, total_memory
from harness.sandbox.processors import processors
from harness.sandbox.run import Outcome


class Running:
    """Counts the programs that run at the same time, in place of `run_program`."""

    def __init__(self, *, slow_together: bool) -> None:
        self.slow_together = slow_together
        self.now = self.most = self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, source: str, *_: object, **__: object) -> Outcome:
        with self._lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(0.01)
        with self._lock:
            alone = self.now == 1
            self.now -= 1
        if "endless" in source or (self.slow_together and not alone):
            return Outcome(False, "timeout", "not done")
        return Outcome(passed="wrong" not in source, fault="exception" if "wrong" in source else None)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    places = Places(3)
    monkeypatch.setattr(attempts, "PLACES", places)
    return places


def judged(sources: list[str]) -> list[Outcome]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(judge, sources))


def test_no_more_programs_run_than_there_are_places(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(slow_together=False)
    monkeypatch.setattr(attempts, "run_program", running)
    assert all(outcome.passed for outcome in judged(["right"] * 30))
    assert running.most == 3 and running.calls == 30


def test_a_program_that_ran_out_of_time_is_tried_again_alone(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(slow_together=True)
    monkeypatch.setattr(attempts, "run_program", running)
    assert all(outcome.passed for outcome in judged(["right"] * 12))
    assert running.most > 1


def test_only_what_ran_out_of_time_is_tried_again(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(slow_together=False)
    monkeypatch.setattr(attempts, "run_program", running)
    found = judged(["right", "wrong", "endless"])
    assert [outcome.fault for outcome in found] == [None, "exception", "timeout"]
    assert running.calls == 4


def test_an_error_gives_the_place_back(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Outcome:
        raise OSError

    monkeypatch.setattr(attempts, "run_program", fail)
    for _ in range(4):
        with pytest.raises(OSError):
            judge("x")
    with places.all():
        pass


FILES = {
    "no groups": ({}, 64),
    "version 2": ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "200000 100000"}, 2),
    "version 2, a group around it": ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "350000 100000"}, 3),
    "version 2, without a limit": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 64),
    "version 2, less than one": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        4,
    ),
    "version 1, without a limit": (
        {
            "proc/self/cgroup": "4:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        64,
    ),
    "malformed": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "many"}, 64),
}


@pytest.mark.parametrize("name", FILES)
def test_the_quota_of_a_container_counts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    files, expected = FILES[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    assert processors(tmp_path) == expected


def test_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 5}, raising=False)
    assert processors(tmp_path) == 2


@pytest.mark.parametrize(
    ("folder", "limit", "usage", "cached"),
    [
        ("sys/fs/cgroup/a", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory/a", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_memory_limit_of_a_container_counts(
    folder: str, limit: str, usage: str, cached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert (total_memory(tmp_path), memory_left(tmp_path)) == (4_096_000, None)
    group = tmp_path / folder / "b"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{'0::' if limit == 'memory.max' else '4:memory:'}/a/b\n1:cpu:/c\n")
    (group / limit).write_text("max\n")
    assert (total_memory(tmp_path), memory_left(tmp_path)) == (4_096_000, None)
    (group.parent / limit).write_text("1000000\n")  # of the group around ours
    (group.parent / usage).write_text("900000\n")
    (group.parent / "memory.stat").write_text(f"anon 5\n{cached} 200000\n")
    assert (total_memory(tmp_path), memory_left(tmp_path)) == (1_000_000, 300_000)
    (group / limit).write_text(f"{2**63 - 4096}\n")  # version 1 without a limit
    assert total_memory(tmp_path) == 1_000_000
    (group.parent / usage).write_text("many\n")
    assert memory_left(tmp_path) == 1_000_000
