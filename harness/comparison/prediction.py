"""Predicts the memory of a training run that has ended, from its settings and rows, to stand beside the measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.errors import UserError
from harness.jobs import PlanJob, Trained, TrainJob
from harness.settings import STAGES
from harness.worker.server import JobFailed


def predicted_peak(run: Callable[[Any], Any], job: TrainJob, trained: Trained) -> int | None:
    """Predicts the peak of a training run's tensors, as `harness plan` does, but for the rows that it had.

    Args:
        run: Runs a job in a child.
        job: The training run.
        trained: Its figures: rows of a micro-batch, and tokens of the longest row.

    Returns:
        Bytes; None for stages that generate answers, and for methods that cannot be planned without weights.
    """
    kind = STAGES[job.training.stage].rows
    if kind == "prompt" or not trained.longest_row:
        return None
    rows = trained.micro_batch_size * (2 if kind == "pair" else 1)
    settings = job.training.model_copy(update={"micro_batch_size": rows, "max_length": trained.longest_row})
    try:
        peak: int = run(PlanJob(job.base, job.method, settings, label_share=trained.label_share)).peak_bytes
    except (JobFailed, UserError):
        return None
    return peak
