"""Predicts memory and time of a training run that has ended, from its settings and rows, to stand beside the measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.jobs import PlanJob, Planned, Trained, TrainJob
from harness.settings import STAGES
from harness.worker.server import JobFailed

MEASURED_TOKENS = {"cpu": 512, "cuda": 8192}
"""Fewest tokens of the steps that measure the speed of a device: `harness.finetune.training.flops`."""
_FEWEST = 20
"""A run with fewer times as many tokens has no predicted time: measuring would take more than 5 % of its time."""


@dataclass(frozen=True)
class Prediction:
    """The predicted costs of a training run; None where they cannot be predicted."""

    peak_bytes: int | None = None
    """Peak of all tensors."""
    seconds: float | None = None
    """Time of all steps."""


NOTHING_PREDICTED = Prediction()


class Predictions:
    """Predicts training runs as `harness plan` does, but for the rows that they had; runs that differ in seeds share one plan.

    Args:
        run: Runs a job in a child.
    """

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run = run
        self._known: dict[str, Planned | None] = {}

    def of(self, job: TrainJob, trained: Trained) -> Prediction:
        """Predicts the costs of a training run; of stages that generate answers, none can be predicted.

        Args:
            job: The training run.
            trained: Its figures: rows of a micro-batch, tokens of the longest row, tokens of all steps.
        """
        kind = STAGES[job.training.stage].rows
        if kind == "prompt" or not trained.longest_row:
            return NOTHING_PREDICTED
        sides = 2 if kind == "pair" else 1  # both answers of a pair count as its tokens
        rows = {"micro_batch_size": sides * trained.micro_batch_size}
        settings = job.training.model_copy(update={**rows, "lr": 1.0, "seed": 0})
        measured = MEASURED_TOKENS.get(job.base.device.partition(":")[0], MEASURED_TOKENS["cpu"])
        planned = self._planned(
            PlanJob(
                job.base,
                job.method,
                settings,
                length=-(-trained.longest_row // sides),
                label_share=trained.label_share,
                measures_speed=trained.tokens >= _FEWEST * measured,
            )
        )
        if planned is None:
            return NOTHING_PREDICTED
        operations = planned.flops_per_row / planned.length * trained.tokens
        speed = planned.flops_per_second
        return Prediction(planned.peak_bytes, operations / speed if speed else None)

    def _planned(self, job: PlanJob) -> Planned | None:
        """The plan of a training run; None for methods that cannot be planned without weights."""
        name = repr(job)
        if name not in self._known:
            try:
                self._known[name] = self._run(job)
            except (JobFailed, UserError):
                self._known[name] = None
        return self._known[name]
