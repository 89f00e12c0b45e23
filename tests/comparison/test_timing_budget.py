"""Timing within a comparison: it can be left out and made up for, it has a budget, and its figures reach the document."""

from pathlib import Path
from typing import Any

import pytest
from in_process import InProcess

from harness.cli import main
from harness.comparison import run as comparison
from harness.comparison.recipes import RATIO_PRECISION
from harness.jobs import BenchJob, ScoreJob, TrainJob
from harness.results import Run
from harness.runs.folder import load_run

SHORT = ["compare", "base", "lora", "--tasks", "mini_mmlu", "--limit", "6", "--steps", "4", "-q"]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, in_process: None) -> list[Any]:
    """The jobs that were run."""
    ran: list[Any] = []
    original = InProcess.run

    def run(self: InProcess, job: Any, on_event: Any = lambda event: None) -> Any:
        ran.append(job)
        return original(self, job, on_event)

    monkeypatch.setattr(InProcess, "run", run)
    return ran


def compare(folder: Path, *arguments: str) -> Run:
    assert main([*SHORT, "-o", str(folder), *arguments]) == 0
    return load_run(next(path for path in folder.iterdir() if path.is_dir()))


def kinds(jobs: list[Any]) -> list[type]:
    return [type(job) for job in jobs if isinstance(job, TrainJob | ScoreJob | BenchJob)]


def test_timing_is_left_out_and_can_be_made_up_for(tmp_path: Path, jobs: list[Any]) -> None:
    run = compare(tmp_path, "--no-timing")
    assert kinds(jobs) == [TrainJob, ScoreJob]
    assert [(variant.status, variant.inference) for variant in run.variants] == [("done", None)] * 2
    jobs.clear()
    assert compare(tmp_path, "--no-timing") == run and kinds(jobs) == []
    timed = compare(tmp_path)
    assert TrainJob not in kinds(jobs) and kinds(jobs).count(BenchJob) == 2
    assert all(variant.inference is not None for variant in timed.variants)
    assert timed.created == run.created and len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    jobs.clear()
    assert compare(tmp_path) == timed and kinds(jobs) == []


def test_the_budget_is_shared_by_the_variants(tmp_path: Path, jobs: list[Any]) -> None:
    compare(tmp_path, "--time-budget", "40")
    first, second = [job for job in jobs if isinstance(job, BenchJob)]
    assert (first.budget_seconds, first.precision, first.with_base) == (20.0, RATIO_PRECISION, False)
    assert 20.0 <= second.budget_seconds < 40.0  # with what the first one left
    assert second.with_base


def test_without_a_budget_of_its_own_timing_is_a_tenth_of_the_run(
    tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison.RunInProgress, "_timing_seconds", _with_clock(monkeypatch, seconds=90.0))
    compare(tmp_path)
    first = next(job for job in jobs if isinstance(job, BenchJob))
    assert first.budget_seconds == pytest.approx(5.0, rel=0.01)  # ten seconds of a hundred, for two variants


def _with_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Any:
    """Has the original count so many seconds since the run began."""
    original = comparison.RunInProgress._timing_seconds

    def timing_seconds(self: comparison.RunInProgress) -> float:
        with monkeypatch.context() as patch:
            patch.setattr(comparison.time, "perf_counter", lambda: self.began + seconds)
            return original(self)

    return timing_seconds


def test_a_bench_makes_all_repeats(tmp_path: Path, jobs: list[Any]) -> None:
    assert main(["bench", "base", "--time-budget", "1", "-q", "-o", str(tmp_path)]) == 2
    assert main(["bench", "base", "-q", "-o", str(tmp_path)]) == 0
    (job,) = [job for job in jobs if isinstance(job, BenchJob)]
    assert job.budget_seconds is job.precision is None


def test_the_document_says_how_busy_the_machine_was(tmp_path: Path, jobs: list[Any]) -> None:
    lora = compare(tmp_path).variant("lora")
    assert lora.train is not None and lora.inference is not None
    assert sum(lora.train.block_seconds) == pytest.approx(lora.train.train_seconds)
    assert len(lora.train.block_seconds) == 4
    for record in (lora.train, lora.inference):
        assert record.cpu_seconds is not None and record.cpu_seconds > 0
        assert record.waited_share is None or 0 <= record.waited_share < 1
