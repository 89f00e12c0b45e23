"""Fairness notes: differences between variants other than the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.gguf import is_gguf, plain_copy
from harness.data.model_files import Snapshot
from harness.prepare.prepare import Prepared, PreparedVariant
from harness.prepare.training_settings import TINY_LR_SCALE
from harness.prepare.trainings import Training
from harness.prompts.render import Prompting

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


def _other_base(variant: PreparedVariant, model: Snapshot) -> list[str]:
    """Notes that a given adapter was trained on another base than the model of this run."""
    given = variant.adapter or (variant.training.start if variant.training else None)
    named = given.config.get("base_model_name_or_path") if isinstance(given, Snapshot) and given.is_adapter else None
    same = not named or Path(named).name == Path(model.name).name or Path(named) == model.folder
    if named and is_gguf(model.folder):  # adapters name the plain copy that they were trained on
        same = Path(named).parent == plain_copy(model.folder, "").parent
    if same or model.name.replace("/", "--") in str(named):  # the Hub's cache writes a name like this
        return []
    return [
        f"{variant.spec.name}: its adapter was trained on `{named}`, according to its config, but runs on `{model.name}` here"
    ]


def fairness(prepared: Prepared, variants: Sequence[PreparedVariant]) -> list[str]:
    """Describes the differences between variants other than the method.

    There is one note for training settings that are not the same for all variants, one for learning rates that are
    defaults, one for prompts, and one for each given adapter that was trained on another base.
    """
    notes = [note for variant in variants for note in _other_base(variant, prepared.model)]
    trained = [variant for variant in variants if variant.training and not variant.spec.replica]
    described = {variant.spec.name: _settings(variant.training) for variant in trained if variant.training}
    labels = dict.fromkeys(label for settings in described.values() for label in settings)
    differing = [k for k in labels if len({settings.get(k, "default") for settings in described.values()}) > 1]
    if differing:
        texts = {
            name: ", ".join(f"{k} {settings.get(k, 'default')}" for k in differing)
            for name, settings in described.items()
        }
        notes.append("training settings differ, not only the method; " + _by_text(texts))
    untuned = {
        variant.spec.name: variant.training.settings.lr
        for variant in trained
        if variant.training and variant.training.given.lr is None
    }
    online = {
        variant.spec.name for variant in trained if variant.training and not variant.training.tunable
    } & untuned.keys()
    if online and prepared.config.tune_lr is not None:
        notes.append(
            f"`--tune-lr` does not tune {', '.join(f'{name} ({untuned[name]:g})' for name in sorted(online))}:"
            " a stage that learns from rewards has no held-out loss"
        )
    if untuned and prepared.config.tune_lr is None:
        rates = ", ".join(f"{name} {lr:g}" for name, lr in untuned.items())
        scaled = f" × {TINY_LR_SCALE:g}, which the embedded model needs" if prepared.config.model == "tiny" else ""
        notes.append(
            f"learning rates are the methods' defaults{scaled}, not tuned: {rates}; `--tune-lr 5` tries 5 for each method"
        )
    prompts = {variant.spec.name: _prompts(variant.prompting) for variant in variants}
    if len(set(prompts.values())) > 1:
        notes.append("prompts differ; " + _by_text(prompts))
    if prepared.model.name == "tiny":
        notes.append(
            "`tiny` is a demonstration: a small model trained on invented facts; real models use the same code"
        )
    return notes


def _by_text(texts: Mapping[str, str]) -> str:
    """Joins texts with the names of the variants that share them.

    Example:
        >>> _by_text({"full": "lr 2e-05", "lora": "lr 0.0002", "dora": "lr 0.0002"})
        'full: lr 2e-05; lora, dora: lr 0.0002'
    """
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    return "; ".join(f"{', '.join(each)}: {text}" for text, each in names.items())


def _settings(training: Training) -> dict[str, str]:
    """Lists the settings of a training run, without those that were not set."""
    others = training.given.model_dump(exclude_unset=True, exclude=_SHOWN_ELSEWHERE)
    return {
        "lr": f"{training.settings.lr:g}",
        "length": training.length,
        "batch": str(training.settings.batch_size),
        "max length": str(training.settings.max_length),
        "seed": str(training.settings.seed),
        "data": f"{training.data.name} ({len(training.data.examples)} rows)",
        **{name.replace("_", " "): str(value) for name, value in others.items()},
    }


def _prompts(prompting: Prompting) -> str:
    parts = ["the tasks' own shots" if prompting.shots is None else f"{prompting.shots} shots"]
    if prompting.system:
        parts.append(f"system prompt “{prompting.system}”")
    if prompting.template:
        parts.append("chat template")
    if prompting.think:
        parts.append(f"think={prompting.think}")
    return ", ".join(parts)
