"""Training runs that cannot work, found before anything is trained: a child builds their models without weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.comparison import recipes
from harness.comparison.state import Session
from harness.errors import UserError
from harness.jobs import CheckJob, Job, TrainJob
from harness.prepare.trainings import Training
from harness.worker.server import JobFailed


def unsuitable(session: Session, run: Callable[[Job], Any], trainings: list[Training]) -> dict[str, UserError]:
    """The reason why each training run will fail, by its id; training runs that may work are left out.

    Args:
        session: The run.
        run: Runs a job in a child.
        trainings: The training runs to check.

    Raises:
        UserError: A user's method leaves nothing to train.
    """
    found: dict[str, UserError] = {}
    known: dict[str, UserError | None] = {}
    for training in trainings:
        start = training.start
        artifact = start if isinstance(start, Training) and start.saves != "checkpoint" else None
        job = CheckJob(_lean(session, training), _lean(session, artifact) if artifact else None)
        train, other = job.train, job.start
        same = repr((train.base, train.method, train.start, train.training.checkpointing, other and other.method))
        if same not in known:
            try:
                known[same] = run(job)
            except JobFailed:  # the method ended its process: the training run will show how
                known[same] = None
        if problem := known[same]:
            found[training.id] = problem
    return found


def _lean(session: Session, training: Training) -> TrainJob:
    """The job of a training run without its data, on a base of which the configuration exists."""
    job = recipes.train_job(session, training)
    base = job.base if job.base.folder.is_dir() else replace(job.base, folder=session.prepared.model.folder)
    return replace(job, base=base, examples=(), validation=(), monitor=None, reward=None)
