"""The predicted memory of a training run is recorded beside the measured one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.comparison import run as comparison
from harness.comparison.prediction import predicted_peak
from harness.config.parse import configure
from harness.errors import UserError
from harness.jobs import PlanJob
from harness.report.footnotes import footnotes


def test_a_run_has_the_prediction_for_its_rows(tmp_path: Path, in_process: None) -> None:
    train = {"steps": 1, "batch_size": 4}
    run = comparison.run(
        configure(["base", "lora"], tasks=["mini_mmlu"], limit=4, train=train, no_timing=True, output_dir=tmp_path)
    )
    found = run.variant("lora").train
    assert found is not None and found.precision in ("fp32", "bf16")
    assert found.predicted_peak_bytes is not None and found.predicted_peak_bytes > 13 << 20  # the weights
    (note,) = [note for note in footnotes(run) if note.startswith("peak memory in training, predicted and measured")]
    assert "lora " in note and " and " in note


class Fake:
    """A training run of rows of 100 tokens, and a child that plans `peak` bytes."""

    def __init__(self, stage: str = "sft", longest: int = 100, peak: Any = 5) -> None:
        config = configure([f"lora:stage={stage}" if stage != "sft" else "lora"], tasks_needed=False)
        self.asked: list[PlanJob] = []
        self.training = _settings(config)
        self.base, self.method, self.peak = None, None, peak
        self.micro_batch_size, self.longest_row, self.label_share = 2, longest, 0.5
        self.peak_bytes = peak

    def run(self, job: PlanJob) -> Any:
        self.asked.append(job)
        if isinstance(self.peak, Exception):
            raise self.peak
        return self


def _settings(config: Any) -> Any:
    from harness.prepare.training_settings import given_settings, resolve

    (spec,) = config.variants
    return resolve(given_settings(config, spec), spec.entry, seed=0, embedded=True)


@pytest.mark.parametrize(("stage", "rows"), [("sft", 2), ("dpo", 4)])
def test_the_plan_is_asked_for_the_rows_that_were_trained_on(stage: str, rows: int) -> None:
    fake: Any = Fake(stage)
    assert predicted_peak(fake.run, fake, fake) == 5
    (job,) = fake.asked
    assert (job.training.micro_batch_size, job.training.max_length, job.label_share) == (rows, 100, 0.5)
    assert job.memory_bytes is None and not job.measures_speed


def test_where_nothing_can_be_predicted_there_is_no_prediction() -> None:
    for fake in (Fake("grpo"), Fake(longest=0), Fake(peak=UserError("it reads the weights"))):
        unknown: Any = fake
        assert predicted_peak(unknown.run, unknown, unknown) is None
