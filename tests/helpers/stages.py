"""Toy pairs, and jobs that train on them, for tests of the training stages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_models as tiny

from harness.jobs import Example, Recipe, Trained, TrainJob
from harness.models.load import Resident, method_function
from harness.settings import TrainingSettings
from harness.worker import child

SETTINGS = TrainingSettings(
    lr=5e-3, steps=24, epochs=None, batch_size=8, micro_batch_size=8, max_length=128, seed=0, stage="dpo"
)


NAMES = ["hello", "world", "small", "capital", "France", "Paris"]


PAIRS = [
    Example(f"Question: {name} {number}? Answer:", f" yes {number}", rejected=f" no {number}")
    for number in range(6)
    for name in NAMES
]


def job_for(
    root: Path, output: Path, name: str = "lora", *, examples: Sequence[Example] = PAIRS, **settings: Any
) -> TrainJob:
    given = {key: settings.pop(key) for key in ("start", "validation", "reward") if key in settings}
    hyperparameters = settings.pop("hyperparameters", {"rank": 4} if "lora" in name else {})
    job = TrainJob(
        base=settings.pop("base", tiny.tiny_base(root / "llama")),
        method=tiny.built_in(name, **hyperparameters),
        training=SETTINGS.model_copy(update=settings),
        examples=examples,
        saves="checkpoint" if name == "full" else "delta",
        output=output / "artifact",
        log=output / "train.jsonl",
        state=output / "state",
        train_key="the key",
    )
    return replace(job, **given)


def train(job: TrainJob) -> Trained:
    return child.train(job, lambda event: None)


def steps(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "train.jsonl").read_text().splitlines()]


def recipe_of(job: TrainJob) -> Recipe:
    if job.saves == "checkpoint":
        return Recipe(replace(job.base, folder=job.output))
    saved_by_peft = (job.output / "adapter_config.json").is_file()
    return Recipe(job.base, job.output, method=None if saved_by_peft else job.method)


def attached(job: TrainJob) -> Any:
    recipe = recipe_of(job)
    return Resident(recipe.base, method_function).attach(recipe)


class Interrupted(Exception):
    pass
