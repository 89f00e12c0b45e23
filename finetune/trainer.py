"""Trains one variant on transformers' Trainer: loss on the completion alone, and a step clock of our own.

The Trainer's own runtime includes loading, evaluation and saving; what counts here is the wall time of the optimiser steps.
An interrupted training continues from its last checkpoint and gives the same weights.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from harness.errors import UserError
from harness.jobs import TRAINED_FILE, Trained, Training, TrainJob
from harness.measure import EnergyMeter, MemoryMeter, Stopwatch, synchroniser
from harness.models import count_parameters, save_artifact
from harness.quantiles import percentile
from harness.render import Example

_CHECKPOINT_EVERY_SECONDS = 300.0
_IGNORED = -100


def run_training(
    job: TrainJob,
    model: Any,
    tokenizer: Any,
    *,
    max_length: int,
    baseline_rss_bytes: int,
    on_step: Callable[[int, int, str], None],
) -> Trained:
    """Trains `model` (the method applied already) and leaves the artifact in `job.output`.

    Args:
        job: What to train on, and how.
        model: Trainable model.
        tokenizer: Its tokenizer.
        max_length: Context length; longer rows are cut on the right and counted.
        baseline_rss_bytes: Resident memory before the weights came.
        on_step: Told `(done, total, note)` after every step.

    Raises:
        UserError: Nothing is trainable, or no row has an answer that fits.
    """
    total, trainable = count_parameters(model)
    if not trainable:
        raise UserError(
            f"method `{job.method.name}` left nothing to train on this model",
            hint="a method must leave at least one parameter with requires_grad",
        )
    settings = job.training
    rows, truncated = tokenise(job.examples, tokenizer, min(max_length, settings.max_length))
    for parameter in model.parameters():
        if parameter.requires_grad:  # 16-bit weights lose small updates
            parameter.data = parameter.data.float()
    model.config.use_cache = False
    recorder = _Recorder(job.log, on_step, synchroniser(job.base.device))
    try:
        trainer = _CountingTrainer(
            model=model,
            args=_arguments(job, settings, len(rows)),
            train_dataset=_Rows(rows),
            data_collator=_Padding(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0),
            callbacks=[recorder],
        )
    except ValueError as error:  # a quantized base without an adapter beside it, say
        raise UserError(
            f"method `{job.method.name}` cannot be trained: {str(error).splitlines()[0][:300]}",
            hint="on a quantized base only added parameters can be trained",
        ) from error
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    recorder.tokens_of = trainer
    checkpoint = _last_checkpoint(job.state)
    recorder.rewind(_step_of(checkpoint) if checkpoint else 0)
    set_seed(settings.seed)
    memory = MemoryMeter(baseline_rss_bytes, job.base.device)
    energy = EnergyMeter(job.base.device)
    with memory, energy:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = recorder.steps
    losses = tuple(step["loss"] for step in steps)
    trained = Trained(
        train_seconds=sum(step["seconds"] for step in steps),
        tokens=sum(step["tokens"] for step in steps),
        steps=len(steps),
        samples=len(rows),
        final_loss=sum(losses[-10:]) / len(losses[-10:]) if losses else None,
        losses=losses,
        step_seconds_p50=percentile([step["seconds"] for step in steps], 0.5) if steps else 0.0,
        parameters_total=total,
        parameters_trainable=trainable,
        truncated=truncated,
        checkpointing=settings.checkpointing,
        micro_batch_size=settings.micro_batch_size,
        peaks=vars(memory.peaks()),
        energy_joules=energy.joules,
    )
    _leave_artifact(job, trainer.accelerator.unwrap_model(model), tokenizer, trained)
    return trained


def tokenise(examples: Sequence[Example], tokenizer: Any, max_length: int) -> tuple[list[dict[str, Any]], int]:
    """Examples as ids and labels, tokenised jointly as scoring does; labels are on the completion alone.

    Returns:
        The rows with at least one label, and how many were cut to `max_length`.

    Raises:
        UserError: No row is left.
    """
    bos = tokenizer.bos_token
    rows: list[dict[str, Any]] = []
    truncated = 0
    for example in examples:
        special = not (bos and example.prompt.startswith(bos))
        kept = example.prompt.rstrip(" ")
        completion = example.prompt[len(kept) :] + example.completion
        prompt_ids = tokenizer(kept, add_special_tokens=special)["input_ids"] if kept else []
        whole = tokenizer(kept + completion, add_special_tokens=special)["input_ids"]
        ids = [*prompt_ids, *whole[len(prompt_ids) :]]
        while len(ids) > len(prompt_ids) and ids[-1] == tokenizer.eos_token_id:
            ids.pop()  # the text's own, or one that the tokenizer adds
        if example.append_eos or completion.endswith(tokenizer.eos_token):
            ids.append(tokenizer.eos_token_id)
        labels = [_IGNORED] * len(prompt_ids) + ids[len(prompt_ids) :]
        if len(ids) > max_length:
            truncated += 1
            ids, labels = ids[:max_length], labels[:max_length]
        if any(label != _IGNORED for label in labels[1:]):
            rows.append({"input_ids": ids, "labels": labels})
    if not rows:
        raise UserError(
            f"none of the {len(examples)} training rows has an answer within {max_length} tokens",
            hint="raise `--max-length`, or shorten the prompts",
        )
    return rows, truncated


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class _Padding:
    """Right padding, which every method takes without a change of score."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        width = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, filler: int) -> Tensor:
            return torch.tensor([row[key] + [filler] * (width - len(row[key])) for row in rows])

        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
        return {
            "input_ids": padded("input_ids", self._pad_id),
            "labels": padded("labels", _IGNORED),
            "attention_mask": mask,
        }


class _CountingTrainer(Trainer):  # type: ignore[misc]
    """Counts the real tokens of each micro-batch that is trained on (the data loader reads ahead)."""

    seen_tokens = 0

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Tensor:
        self.seen_tokens += int(inputs["attention_mask"].sum())
        loss: Tensor = super().training_step(model, inputs, *rest, **options)
        return loss


class _Recorder(TrainerCallback):  # type: ignore[misc]
    """One line of the log a step: loss, learning rate, seconds, tokens."""

    tokens_of: _CountingTrainer

    def __init__(self, log: Path, on_step: Callable[[int, int, str], None], synchronise: Callable[[], None]) -> None:
        self._log = log
        self._on_step = on_step
        self._watch = Stopwatch(synchronise=synchronise)
        self._start = 0.0
        self._saved = time.monotonic()
        self.steps: list[dict[str, Any]] = []

    def rewind(self, step: int) -> None:
        """Keeps the log's first `step` lines: those of the checkpoint that training continues from."""
        lines = self._log.read_text().splitlines()[:step] if step and self._log.is_file() else []
        self.steps = [json.loads(line) for line in lines]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_text("".join(line + "\n" for line in lines))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._watch.synchronise()
        self._start = self._watch.clock()
        self._before = self.tokens_of.seen_tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._watch.synchronise()
        seconds = self._watch.clock() - self._start
        tokens = self.tokens_of.seen_tokens - self._before
        self.steps.append({"step": state.global_step, "seconds": seconds, "tokens": tokens})
        if time.monotonic() - self._saved > _CHECKPOINT_EVERY_SECONDS:
            control.should_save = True
            self._saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs or not self.steps or "loss" in self.steps[-1]:
            return
        self.steps[-1].update(loss=logs["loss"], lr=logs.get("learning_rate"), grad_norm=logs.get("grad_norm"))
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.steps[-1]) + "\n")
        self._on_step(state.global_step, state.max_steps, f"loss {logs['loss']:.2f}")


def _arguments(job: TrainJob, settings: Training, rows: int) -> TrainingArguments:
    steps = settings.steps or math.ceil((settings.epochs or 1.0) * math.ceil(rows / settings.batch_size))
    arguments = TrainingArguments(
        output_dir=str(job.state),
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=max(1, settings.batch_size // settings.micro_batch_size),
        max_steps=settings.steps if settings.steps is not None else -1,
        num_train_epochs=settings.epochs or 1.0,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup * steps),  # a share would be rounded up: a first step at rate 0
        optim="adamw_torch",
        train_sampling_strategy="random",  # by length, each batch of a mix would be of one task
        remove_unused_columns=False,
        bf16=settings.bf16,
        use_cpu=job.base.device == "cpu",
        gradient_checkpointing=settings.checkpointing,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=1,
        disable_tqdm=True,
        report_to="none",
        seed=settings.seed,
        dataloader_pin_memory=job.base.device != "cpu",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one device: no DataParallel over all that are visible
    return arguments


def _last_checkpoint(state: Path) -> Path | None:
    """The newest whole checkpoint; the trainer's state is written last, so one torn by a kill has none, or a torn one."""
    for folder in sorted(state.glob("checkpoint-*"), key=_step_of, reverse=True):
        with suppress(OSError, json.JSONDecodeError):
            json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            return folder
    return None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _leave_artifact(job: TrainJob, model: Any, tokenizer: Any, trained: Trained) -> None:
    """Writes the artifact aside, syncs it, and renames it: it is whole or not there."""
    aside = job.output.with_name(job.output.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    if job.saves == "checkpoint":
        model = model.to(getattr(torch, job.base.dtype))
    save_artifact(model, tokenizer, aside, saves=job.saves, method=job.method)
    record = {"train_key": job.train_key, "trained": asdict(trained)}
    (aside / TRAINED_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    for path in aside.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    shutil.rmtree(job.output, ignore_errors=True)
    aside.rename(job.output)
    shutil.rmtree(job.state, ignore_errors=True)
