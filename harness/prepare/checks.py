"""What a stage of training demands of its data, of what it goes on from and of what it is judged by, and how it can be scored.

Checked once a run is prepared, before anything is loaded.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

from harness.data.model_files import Snapshot
from harness.errors import UserError
from harness.jobs import HEAD_FILE
from harness.prepare.prepare import Prepared, Row
from harness.prepare.trainings import Training
from harness.registry.task_spec import parse_task
from harness.settings import PAIRED_STAGES


def check(prepared: Prepared, *, scores: bool) -> None:
    """Refuses trainings that could not be done, and reward models on tasks that ask for words.

    Args:
        prepared: The run.
        scores: Whether variants are scored, too.

    Raises:
        UserError: The first thing that is wrong.
    """
    if prepared.config.tune_lr and any(training.tunable for training in prepared.trainings):
        require_optuna()
    for row in prepared.rows:
        if row.training is not None:
            _check_training(row.spec.name, row.training)
        if scores and row.training is not None and row.training.monitor is not None:
            _check_monitor(prepared, row.spec.name, row.training.monitor.task)
        if scores and _judges(prepared, row):
            _check_tasks(row)


def _check_training(name: str, training: Training) -> None:
    stage = training.settings.stage or "sft"
    where = f"variant `{name}`"
    if stage in PAIRED_STAGES:
        examples = [*training.data.examples, *(training.validation.examples if training.validation else ())]
        if any(example.rejected is None for example in examples):
            raise UserError(
                f"{where}: `stage={stage}` learns from a better and a worse answer, and `{training.data.name}` has one",
                hint="name a file or dataset with the columns chosen and rejected: `data=FILE`",
            )
        if all(example.completion == example.rejected for example in examples):
            raise UserError(
                f"{where}: the two answers of every row of `{training.data.name}` are the same",
                hint="is the same column mapped to chosen and rejected?",
            )
    if stage == "grpo" and training.settings.generations == 1:
        raise UserError(
            f"{where}: GRPO compares the answers to a prompt with one another, and `generations=1` gives one",
            hint="at least 2; 8 is usual",
        )
    if stage == "reward" and training.monitor is not None:
        raise UserError(
            f"{where}: a reward model cannot be watched by the task `{training.monitor.task}`",
            hint="`monitor=loss`, with rows held out by `validation`",
        )
    reward, start = training.reward, training.start
    is_no_judge = (isinstance(reward, Training) and reward.settings.stage != "reward") or (
        isinstance(reward, Snapshot) and not (reward.folder / HEAD_FILE).is_file()
    )
    if is_no_judge:
        raise UserError(
            f"{where}: `reward={training.settings.reward}` is no reward model",
            hint="name a variant of `stage=reward`, its folder, or a function: `reward=FILE.py@function`",
        )
    if isinstance(start, Snapshot) and (made_by := _method_of(start)) not in (None, training.entry.name):
        raise UserError(
            f"{where}: `{training.entry.name}` cannot go on from `{start.name}`, which `{made_by}` made",
            hint=f"start from an artifact of `{training.entry.name}`, or from a whole checkpoint",
        )


def _check_monitor(prepared: Prepared, name: str, watched: str) -> None:
    """Weights that were chosen by samples would be flattered by their score."""
    monitor = parse_task(watched)
    for task in prepared.tasks:
        apart = monitor.groups and task.spec.groups and not {*monitor.groups} & {*task.spec.groups}
        if task.spec.source == monitor.source and not apart:
            raise UserError(
                f"variant `{name}`: `monitor={watched}` would choose weights by the samples that they are scored on",
                hint="watch a task that is not scored, or `monitor=loss` with `validation=0.1`",
            )


def _method_of(artifact: Snapshot) -> str | None:
    """The method that left a delta; None for adapters and checkpoints, which do not say."""
    try:
        record = json.loads((artifact.folder / "method.json").read_text(encoding="utf-8"))
        return str(record["method"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _judges(prepared: Prepared, row: Row) -> bool:
    """Whether a variant is a reward model."""
    if row.training is not None:
        return row.training.settings.stage == "reward"
    given = row.adapter or prepared.model
    return (given.folder / HEAD_FILE).is_file()


def _check_tasks(row: Row) -> None:
    for task, items in row.items.items():
        if any(item.request.mode != "choose" for item in items):
            raise UserError(
                f"variant `{row.spec.name}` is a reward model, which writes nothing: task `{task}` cannot be scored with it",
                hint="score it on tasks of choices (`--tasks preference`), or train it apart: `harness train`",
            )


def require_optuna() -> None:
    """Raises a `UserError` where optuna is not installed."""
    if find_spec("optuna") is None:
        raise UserError("`--tune-lr` needs optuna, which is not installed", hint="pip install 'finetune-harness[tune]'")


def _optuna() -> Any:
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
