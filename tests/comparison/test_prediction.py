"""The predicted memory of a training run is recorded beside the measured one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.comparison import run as comparison
from harness.comparison.prediction import MEASURED_TOKENS, Prediction, Predictions
from harness.config.parse import configure
from harness.errors import UserError
from harness.finetune.training import flops
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
    """A training run of 1,000 rows of 100 tokens, and a child that plans `peak` bytes and 8 operations a token."""

    def __init__(self, stage: str = "sft", longest: int = 100, peak: Any = 5, tokens: int = 100_000) -> None:
        config = configure([f"lora:stage={stage}" if stage != "sft" else "lora"], tasks_needed=False)
        self.asked: list[PlanJob] = []
        self.training = _settings(config)
        self.base, self.method, self.peak = SimpleNamespace(device="cpu"), None, peak
        self.micro_batch_size, self.longest_row, self.label_share, self.tokens = 2, longest, 0.5, tokens

    def run(self, job: PlanJob) -> Any:
        self.asked.append(job)
        if isinstance(self.peak, Exception):
            raise self.peak
        length = job.length or 0
        speed = 100_000.0 if job.measures_speed else None
        return SimpleNamespace(peak_bytes=self.peak, length=length, flops_per_row=8.0 * length, flops_per_second=speed)


def predicted(fake: Any) -> Prediction:
    return Predictions(fake.run).of(fake, fake)


def _settings(config: Any) -> Any:
    from harness.prepare.training_settings import given_settings, resolve

    (spec,) = config.variants
    return resolve(given_settings(config, spec), spec.entry, seed=0, embedded=True)


@pytest.mark.parametrize(("stage", "rows", "length"), [("sft", 2, 100), ("dpo", 4, 50)])
def test_the_plan_is_asked_for_the_rows_that_were_trained_on(stage: str, rows: int, length: int) -> None:
    fake = Fake(stage)
    assert predicted(fake) == Prediction(5, 8.0)
    (job,) = fake.asked
    assert (job.training.micro_batch_size, job.length, job.label_share) == (rows, length, 0.5)
    assert job.memory_bytes is None


def test_a_short_run_does_not_pay_for_a_measurement_of_the_speed() -> None:
    steps = {device: fewest * (1 + flops._MEASURED_STEPS) for device, (fewest, _) in flops._MEASURED_TOKENS.items()}
    assert steps == MEASURED_TOKENS
    assert predicted(Fake(tokens=20 * 512 - 1)) == Prediction(5, None)


def test_runs_that_differ_in_seed_and_learning_rate_share_a_plan() -> None:
    fake: Any = Fake()
    plans = Predictions(fake.run)
    first = plans.of(fake, fake)
    fake.training = fake.training.model_copy(update={"seed": 7, "lr": 0.5})
    assert plans.of(fake, fake) == first and len(fake.asked) == 1
    fake.longest_row = 50
    assert plans.of(fake, fake).peak_bytes == 5 and len(fake.asked) == 2


def test_where_nothing_can_be_predicted_there_is_no_prediction() -> None:
    for fake in (Fake("grpo"), Fake(longest=0), Fake(peak=UserError("it reads the weights"))):
        assert predicted(fake) == Prediction()


def test_the_predicted_time_stands_beside_the_measured_one(tmp_path: Path, in_process: None) -> None:
    train = {"steps": 12, "batch_size": 16, "data": "mini_gsm8k", "max_length": 96}
    run = comparison.run(
        configure(["lora"], tasks=["mini_mmlu"], limit=2, train=train, no_timing=True, output_dir=tmp_path)
    )
    found = run.variant("lora").train
    assert found is not None and found.tokens >= 20 * 512 and found.predicted_seconds is not None
    (note,) = [note for note in footnotes(run) if note.startswith("training time, predicted and measured: lora ")]
    assert " s and " in note or " ms and " in note
