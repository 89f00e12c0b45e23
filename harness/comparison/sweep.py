"""A sweep over learning rates for one training run (`--tune-lr`)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.comparison import recipes
from harness.comparison.state import Session
from harness.comparison.tuning import Tuned, tune
from harness.jobs import Trained, TrainJob
from harness.prepare.trainings import Training
from harness.runs.reuse import delete_weights
from harness.worker.server import JobFailed


def sweep(session: Session, training: Training, train: Callable[[TrainJob], Trained]) -> Tuned | None:
    """Trains with several learning rates, and keeps the weights of the best one only.

    Args:
        session: The run.
        training: The training run, with the method's default learning rate.
        train: Runs a training job.

    Returns:
        The best learning rate; None if every trial failed.
    """
    succeeded: list[tuple[float, float, Path]] = []

    def held_out_loss(lr: float) -> float | None:
        trial = replace(training, id=f"{training.id}@lr={lr:g}", lr=lr)
        job = recipes.train_job(session, trial)
        try:
            loss = train(job).validation_loss
        except JobFailed as failure:
            session.folder.log_failure(f"tune-{trial.id}", failure.child_traceback)
            for checkpoint in job.output.parent.glob(f"{job.output.name}-step-*"):
                shutil.rmtree(checkpoint, ignore_errors=True)
            return None
        if loss is None or not math.isfinite(loss):
            return None
        succeeded.append((loss, lr, job.output))
        for _, _, worse in sorted(succeeded)[1:]:  # after every trial, so the disk never holds the weights of all
            if worse.is_dir():
                delete_weights(worse)
        return loss

    return tune(training.lr, session.config.tune_lr or 0, held_out_loss)
