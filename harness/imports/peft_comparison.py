"""PEFT's `method_comparison`: one JSON file for each experiment, with costs and a test accuracy, and without samples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.comparison.curve import read_curve
from harness.errors import UserError
from harness.imports.bounded import number, objects, refused, text
from harness.imports.record import ImportedRun, ImportedTask, Measured
from harness.results import Artifact, Parameters, Protocol, Train, Variant

TEST_QUESTIONS = 1319
"""Questions of GSM8K's test split, on which `MetaMathQA` experiments are scored."""
FORGETTING_FROM = "2026-07-14"
"""Earlier files have a wrong `forgetting` (PEFT's pull request 3419)."""


def recognizes(found: Mapping[str, Any]) -> bool:
    """Whether a JSON document is the result of an experiment."""
    return "run_info" in found and "train_info" in found


def read(file: Path, found: Mapping[str, Any]) -> ImportedRun:
    """Reads the result of an experiment.

    Raises:
        UserError: A field is missing or wrong, or the experiment failed.
    """
    about, trained = objects(file, found, "run_info"), objects(file, found, "train_info")
    meta = objects(file, found, "meta_info", needed=False)
    config = objects(file, about, "train_config")
    name = text(file, "run_info.experiment_name", about.get("experiment_name"))
    created = text(file, "run_info.created_at", about.get("created_at"))
    if trained.get("status") != "success":
        raise UserError(
            f"`{file}`: the experiment was not finished: `train_info.status` is {str(trained.get('status'))[:40]}",
            hint="move the file away, or run the experiment again",
        )
    steps = trained.get("metrics")
    if not isinstance(steps, list) or not steps or not all(isinstance(each, dict) for each in steps):
        raise refused(file, "`train_info.metrics` is not a list of measurements")
    last = steps[-1]
    if "test accuracy" not in last:
        raise UserError(
            f"`{file}`: `train_info.metrics` has no `test accuracy`",
            hint="experiments of `MetaMathQA` are read; those of other tasks have other metrics",
        )
    model = text(file, "run_info.train_config.model_id", config.get("model_id"))
    tasks, notes = _tasks(file, last, created, config)
    machine = objects(file, meta, "system_info", needed=False).get("accelerator")
    versions = objects(file, meta, "package_info", needed=False)
    method = about.get("peft_config")
    kind = method.get("peft_type") if isinstance(method, dict) else None
    base = re.escape(model.rsplit("/", 1)[-1])
    row = re.sub(f"/{base}-", "-", name, count=1, flags=re.IGNORECASE).replace("/", "-")
    return ImportedRun(
        name=row,
        tool=f"PEFT method_comparison {versions.get('peft-version') or ''}".strip()[:60],
        file=file,
        spec=name,
        model=model,
        created=created[:40],
        tasks=tasks,
        lacks=("samples", "further seeds", "latency"),
        variant=Variant(
            name=row,
            spec=name,
            method=str(kind or "full fine-tuning")[:60].lower(),
            status="done",
            parameters=Parameters(
                total=int(number(file, "train_info.num_total_params", trained.get("num_total_params"))),
                trainable=int(number(file, "train_info.num_trainable_params", trained.get("num_trainable_params"))),
            ),
            train=_train(file, trained, config, steps),
            artifact=Artifact(path=name, bytes=int(number(file, "train_info.file_size", trained.get("file_size")))),
        ),
        device=str(machine)[:120] if machine else None,
        notes=notes,
    )


def _tasks(
    file: Path, last: Mapping[str, Any], created: str, config: Mapping[str, Any]
) -> tuple[tuple[ImportedTask, ...], tuple[str, ...]]:
    accuracy = number(file, "train_info.metrics.test accuracy", last.get("test accuracy"))
    if not 0 <= accuracy <= 1:
        raise refused(file, f"`test accuracy` is {accuracy}, not a share")
    right = accuracy * TEST_QUESTIONS
    whole = abs(right - round(right)) < 1e-3
    protocol = Protocol(
        version=None,
        shots=0,
        mode="generate",
        numerics="transformers",
        engine="PEFT method_comparison",
        dtype=str(config.get("dtype") or "unknown")[:20],
        chat_template=None,
    )
    settings = {
        "question": str(config.get("query_template")),
        "generation settings": str(config.get("generation_kwargs")),
        "model": str(config.get("model_id")),
    }
    measured = Measured("test accuracy", accuracy, True, TEST_QUESTIONS if whole else 0, share=whole, bounds=(0.0, 1.0))
    tasks = [ImportedTask("MetaMathQA", (measured,), protocol, settings, "PEFT method_comparison", trained_on=True)]
    notes: list[str] = []
    if (forgotten := last.get("forgetting")) is not None:
        if created[:10] < FORGETTING_FROM:
            notes.append(
                f"`forgetting` of files written before {FORGETTING_FROM} is left out: it was computed wrongly (PEFT #3419)"
            )
        else:
            value = number(file, "train_info.metrics.forgetting", forgotten)
            tasks.append(
                ImportedTask(
                    "forgetting",
                    (Measured("forgetting", value, False, 0),),
                    protocol,
                    settings,
                    "PEFT method_comparison",
                )
            )
    return tuple(tasks), tuple(notes)


def _train(file: Path, trained: Mapping[str, Any], config: Mapping[str, Any], steps: list[dict[str, Any]]) -> Train:
    last, at = steps[-1], "train_info.metrics."
    seconds = number(file, "train_info.train_time", trained.get("train_time"))
    tokens = int(number(file, f"{at}train total tokens", last.get("train total tokens", 0)))
    losses = [
        number(file, f"{at}{index}.train loss", each["train loss"])
        for index, each in enumerate(steps[:-1])
        if "train loss" in each
    ]
    rates = config.get("optimizer_kwargs")
    return Train(
        train_seconds=seconds,
        tokens=tokens,
        tokens_per_second=tokens / seconds if seconds > 0 else 0.0,
        steps=int(number(file, f"{at}step", last.get("step"))),
        lr=number(
            file, "run_info.train_config.optimizer_kwargs.lr", rates.get("lr") if isinstance(rates, dict) else None
        ),
        batch_size=int(number(file, "run_info.train_config.batch_size", config.get("batch_size"))),
        seed=int(number(file, "run_info.train_config.seed", config.get("seed", 0))),
        samples=int(number(file, f"{at}train samples", last.get("train samples", 0))),
        final_loss=number(file, f"{at}train loss", last.get("train loss")),
        curve=read_curve(losses),
        peak_gpu_reserved_bytes=int(
            number(file, "train_info.accelerator_memory_max", trained.get("accelerator_memory_max"))
        ),
    )
