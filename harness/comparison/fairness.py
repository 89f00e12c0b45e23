"""Fairness notes: differences between variants other than the method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.data.model_files import Snapshot
from harness.prepare.prepare import Prepared, Row
from harness.prepare.trainings import Training

_SHOWN_ELSEWHERE = {
    "lr",
    "steps",
    "epochs",
    "batch_size",
    "max_length",
    "data",
    "samples",
    "columns",
    "micro_batch_size",
    "packing",
}
"""Settings that the note shows under another name, or that change no result."""


def _other_base(row: Row, model: Snapshot) -> list[str]:
    """Notes that a given adapter was trained on another base than the model of this run."""
    given = row.adapter or (row.training.start if row.training else None)
    named = given.config.get("base_model_name_or_path") if isinstance(given, Snapshot) and given.is_adapter else None
    same = not named or Path(named).name == Path(model.name).name or Path(named) == model.folder
    if same or model.name.replace("/", "--") in str(named):  # the Hub's cache writes a name like this
        return []
    return [
        f"{row.spec.name}: its adapter was trained on `{named}`, according to its config, but runs on `{model.name}` here"
    ]


def fairness(prepared: Prepared, rows: Sequence[Row]) -> list[str]:
    """Describes the differences between variants other than the method.

    There is one note for training settings that are not the same for all variants, one for learning rates that are
    defaults, one for prompts, and one for each given adapter that was trained on another base.
    """
    notes = [note for row in rows for note in _other_base(row, prepared.model)]
    trained = [row for row in rows if row.training and not row.spec.replica]
    described = {row.spec.name: _settings(row.training) for row in trained if row.training}
    labels = dict.fromkeys(label for settings in described.values() for label in settings)
    differing = [k for k in labels if len({settings.get(k, "default") for settings in described.values()}) > 1]
    if differing:
        parts = [
            f"{name}: " + ", ".join(f"{k} {settings.get(k, 'default')}" for k in differing)
            for name, settings in described.items()
        ]
        notes.append("training settings differ, not only the method; " + "; ".join(parts))
    untuned = {row.spec.name: row.training.lr for row in trained if row.training and row.training.settings.lr is None}
    online = {row.spec.name for row in trained if row.training and not row.training.tunable} & untuned.keys()
    if online and prepared.config.tune_lr is not None:
        notes.append(
            f"`--tune-lr` does not tune {', '.join(f'{name} ({untuned[name]:g})' for name in sorted(online))}:"
            " a stage that learns from rewards has no held-out loss"
        )
    if untuned and prepared.config.tune_lr is None:
        rates = ", ".join(f"{name} {lr:g}" for name, lr in untuned.items())
        notes.append(
            f"learning rates are the methods' defaults, not tuned: {rates}; `--tune-lr 5` tries 5 for each method"
        )
    prompts = {
        row.spec.name: _prompts(row.prompting.shots, row.prompting.system, row.prompting.template) for row in rows
    }
    if len(set(prompts.values())) > 1:
        notes.append("prompts differ; " + "; ".join(f"{name}: {text}" for name, text in prompts.items()))
    if prepared.model.name == "tiny":
        notes.append(
            "`tiny` is a demonstration: a small model trained on invented facts; real models use the same code"
        )
    return notes


def _settings(training: Training) -> dict[str, str]:
    """Lists the settings of a training run, without those that were not set."""
    others = training.settings.model_dump(exclude_none=True, exclude=_SHOWN_ELSEWHERE)
    return {
        "lr": f"{training.lr:g}",
        "length": f"{training.steps} steps" if training.steps is not None else f"{training.epochs:g} epochs",
        "batch": str(training.batch_size),
        "max length": str(training.max_length),
        "seed": str(training.seed),
        "data": f"{training.data.name} ({len(training.data.examples)} rows)",
        **{name.replace("_", " "): str(value) for name, value in others.items()},
    }


def _prompts(shots: int | None, system: str | None, template: object) -> str:
    parts = ["the tasks' own shots" if shots is None else f"{shots} shots"]
    if system:
        parts.append(f"system prompt “{system}”")
    if template:
        parts.append("chat template")
    return ", ".join(parts)
