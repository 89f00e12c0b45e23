"""Trains one variant: from a method's model and rendered examples to an artifact on disk and the figures of the run.

Training time is the wall time of the optimizer steps, as `harness.finetune.training.recorder` measures it. An interrupted run
resumes from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor
from transformers import TrainingArguments

from harness.engine.prefix_cache import learns_a_prompt
from harness.errors import UserError, brief
from harness.finetune.training.adaptive_rank import adaptive_rank
from harness.finetune.training.loop import Diverged, Loop, batches_per_epoch
from harness.finetune.training.loss import router_coefficient, whole_logits_note
from harness.finetune.training.optimizers import make_optimizer
from harness.finetune.training.recomputation import ARGUMENT, recompute_activations
from harness.finetune.training.recorder import Recorder
from harness.finetune.training.stage import Stage, load_stage
from harness.finetune.training.trackers import Trackers
from harness.finetune.training.trained_weights import TRAINED_DTYPE, hold_trained
from harness.finetune.training.validation import Headline, Validation, distance
from harness.jobs import TRAINED_FILE, Trained, TrainJob
from harness.models.artifacts import save_artifact
from harness.models.load import count_parameters
from harness.models.measure import EnergyMeter, MemoryMeter, fast_bfloat16
from harness.models.phases import Phases
from harness.models.read_back import probe_logits
from harness.settings import TrainingSettings, optimizer_name
from harness.stats.curve_points import blocks, thinned
from harness.stats.quantiles import percentile
from harness.storage import DiskFull, partial, whole_folder
from harness.tokens.training_labels import IGNORED

_KEYS_AND_VALUES = ("PREFIX_TUNING", "CARTRIDGE")
"""Methods of peft that learn keys and values, which are lost when activations are recomputed."""


def run_training(
    job: TrainJob,
    model: Any,
    tokenizer: Any,
    *,
    max_length: int,
    baseline_rss_bytes: int,
    on_step: Callable[[int, int, str], None],
    notes: Sequence[str] = (),
    check: Callable[[Path, Tensor], None] | None = None,
    phases: Phases | None = None,
) -> Trained:
    """Trains `model`, to which the method was already applied, and saves the artifact in `job.output`.

    Args:
        job: Training data and settings.
        model: Trainable model.
        tokenizer: The model's.
        max_length: Context length; longer rows are truncated on the right and counted.
        baseline_rss_bytes: Resident memory before the weights were loaded.
        on_step: Called with `(done, total, note)` after every step.
        notes: Notes for the report that are known already.
        check: Reads the saved artifact back, given its folder and `probe_logits` of the trained model; it may free the model.
        phases: Clocks of the job, if it began before.

    Raises:
        UserError: Nothing is trainable, no row has an answer that fits, or the method does not support the settings.
        Diverged: The loss or the gradient is not a finite number.
    """
    refuse_untrainable(job, model)
    phases = phases or Phases()
    settings, device = job.training, job.base.device
    hold_trained(model, TRAINED_DTYPE[settings.weights])
    model.config.use_cache = False
    phases.enter("tokenise")
    stage = load_stage(job, model, tokenizer, min(max_length, settings.max_length))
    total, trainable = _parameters(model)
    _refuse_full_disk(job, total if job.saves == "checkpoint" else trainable)
    steps = steps_of(settings, len(stage.rows), stage.updates)
    arguments = _arguments(job, steps)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.log.with_suffix(".tensorboard"))
    with _refusing(job):
        trackers = Trackers(job.report_to, arguments, model)
    recorder = Recorder(job.log, on_step, device, trackers)
    memory, energy = MemoryMeter(baseline_rss_bytes, device), EnergyMeter(device)

    @contextmanager
    def aside(phase: str) -> Iterator[None]:
        with phases(phase), memory.paused(), energy.paused():
            yield

    ranks = adaptive_rank(model, steps)
    if settings.checkpointing:
        recompute_activations(model)
    loop = Loop(
        stage,
        model,
        settings,
        steps,
        accelerator=_accelerator(job, arguments),
        optimizer=make_optimizer(model, settings, arguments),
        recorder=recorder,
        state=job.state,
        train_key=job.train_key,
        validation=_validation(job, tokenizer, stage, steps, max_length),
        ranks=ranks,
        aside=aside,
    )
    found, foreign = loop.checkpoints.newest()
    recorder.rewind(found.step if found else 0)
    phases.enter("train")
    stage.phases = phases
    try:
        with memory, energy:
            if found:
                loop.resume(found)
            trackers.begin()
            loop.run()
            trackers.end()
    except Diverged as error:
        kept = _keep_last_good(job, tokenizer, stage, loop, recorder, broken=error.broken)
        raise Diverged(f"{error}; lower the learning rate ({kept})") from None
    phases.enter("save")
    if ranks is not None:
        ranks.finish()
    trained = Trained(
        **_figures(recorder, loop),
        samples=len(stage.rows),
        parameters_total=total,
        parameters_trainable=trainable,
        truncated=stage.truncated,
        dropped=stage.dropped,
        lost_tokens=stage.lost_tokens,
        checkpointing=settings.checkpointing,
        micro_batch_size=loop.progress.most_rows,
        longest_row=max((row["length"] for row in stage.rows), default=0),
        label_share=_label_share(stage),
        peaks=vars(memory.peaks()),
        precision=settings.precision if settings.precision != "auto" else None,
        # unknown for steps before an interruption
        energy_joules=None if found else energy.joules,
        cpu_seconds=None if found else recorder.processor.use.cpu_seconds,
        waited_share=recorder.processor.use.waited_share,
        notes=(*notes, *_notes(job, loop, foreign)),
    )
    return _save_with_figures(
        job, model, tokenizer, stage, trained, check, phases, lambda: loop.checkpoints.save(loop.progress)
    )


def steps_of(settings: TrainingSettings, rows: int, updates: int = 1) -> int:
    """Returns the number of optimizer steps of a training run.

    Args:
        settings: `steps`, or `epochs` and `batch_size`.
        rows: Rows of the data.
        updates: Optimizer steps on the same batch; with more than one, only whole batches count.

    Example:
        >>> steps_of(TrainingSettings(lr=1e-3, epochs=2.0, batch_size=8, micro_batch_size=8), rows=20)
        6
    """
    if settings.steps is not None:
        return settings.steps
    return math.ceil((settings.epochs or 1.0) * batches_per_epoch(rows, settings.batch_size, updates) * updates)


def _label_share(stage: Stage) -> float:
    """Share of the tokens that have a label, among the first rows, in stages whose rows have labels; else 1."""
    labels = [row["labels"] for row in stage.rows[:1000] if "labels" in row]
    return sum(label != IGNORED for row in labels for label in row) / max(1, sum(map(len, labels))) if labels else 1.0


def _refuse_full_disk(job: TrainJob, numbers: int) -> None:
    """Checks before training that the artifact will have room; a learned prompt saves less than it trains.

    Args:
        job: The training run.
        numbers: Numbers that the artifact holds.

    Raises:
        DiskFull: It will not.
    """
    size = numbers * (getattr(torch, job.base.dtype).itemsize if job.saves == "checkpoint" else 4)
    folder = next(each for each in job.output.absolute().parents if each.is_dir())
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskFull(
            f"the disk is too full to train: the artifact needs about {size / 1e6:,.0f} MB and `{folder}` has {free / 1e6:,.0f} MB",
            hint="free some space, or choose another folder with `--output-dir`",
        )


def _parameters(model: Any) -> tuple[int, int]:
    """Counts all and trained parameters, including a reward head, without PPO's value head, which is discarded."""
    total, trainable = count_parameters(model)
    discarded = count_parameters(model.value_head)[0] if hasattr(model, "value_head") else 0
    return total - discarded, trainable - discarded


def refuse_untrainable(job: TrainJob, model: Any) -> None:
    """Refuses jobs that cannot be trained, before training starts.

    Raises:
        UserError: Nothing is trainable, or the method or the base does not support the settings.
    """
    settings = job.training
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            f"method `{job.method.name}` left no parameter of this model to train",
            hint="a method must return a model with at least one parameter that has requires_grad",
        )
    if settings.checkpointing and learns_a_prompt(model) and model.active_peft_config.peft_type in _KEYS_AND_VALUES:
        raise UserError(
            f"method `{job.method.name}` cannot be trained with activation checkpointing: it learns keys and values,"
            " which are lost when activations are recomputed",
            hint="leave out `checkpointing`",
        )
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad and p.is_floating_point()}
    if settings.precision == "fp32" and frozen & {torch.float16, torch.bfloat16} and job.base.quant is None:
        raise UserError(
            f"`precision=fp32` is not possible with a base in {job.base.dtype}",
            hint="load the base with `--dtype float32`, or leave out `precision`",
        )


def _arguments(job: TrainJob, steps: int) -> TrainingArguments:
    """Translates the settings to `TrainingArguments`, for the optimizers and trackers of transformers."""
    settings = job.training
    os.environ["ACCELERATE_TORCH_DEVICE"] = job.base.device  # otherwise all would be moved to the first GPU
    with _refusing(job):
        return TrainingArguments(
            output_dir=str(job.state),
            per_device_train_batch_size=settings.batch_size,
            max_steps=steps,
            learning_rate=settings.lr,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.clip,
            optim=optimizer_name(settings.optimizer),
            bf16=settings.precision == "bf16",
            fp16=settings.precision == "fp16",
            use_cpu=job.base.device == "cpu",
            **{ARGUMENT: settings.checkpointing},
            logging_steps=1,
            report_to=list(job.report_to) or "none",
            run_name=job.log.stem,
            seed=settings.seed,
        )


def _accelerator(job: TrainJob, arguments: TrainingArguments) -> Accelerator:
    """Sets up device and mixed precision; making `arguments` has already reset accelerate's state of an earlier run."""
    if job.base.device.startswith("cuda:"):
        torch.cuda.set_device(job.base.device)  # making `arguments` has chosen the first GPU
    with _refusing(job):
        return Accelerator(cpu=arguments.use_cpu, mixed_precision=arguments.mixed_precision)


@contextmanager
def _refusing(job: TrainJob) -> Iterator[None]:
    """Names the method when a library refuses the settings, such as bfloat16 on an old GPU or a tracker that is not installed."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise UserError(
            f"method `{job.method.name}` cannot be trained: {brief(error)}",
            hint="see `harness env`, and the settings of the training run",
        ) from error


def _validation(job: TrainJob, tokenizer: Any, stage: Stage, steps: int, context: int) -> Validation | None:
    settings = job.training
    if not job.validation and job.monitor is None:
        return None
    headline = Headline(job.monitor, tokenizer, context=context, seed=settings.seed) if job.monitor else None
    rounds = math.ceil(distance(steps, settings.evaluate_every) / stage.updates)
    every = rounds * stage.updates  # an evaluation may save a checkpoint, and a round cannot be resumed midway
    return Validation(stage.encode(job.validation) if job.validation else (), headline, every)


def _figures(recorder: Recorder, loop: Loop) -> dict[str, Any]:
    """Reads the figures of the run from its log."""
    lines, evaluations, best = recorder.steps, recorder.evaluations, loop.progress.best_step
    losses = tuple(line["loss"] for line in lines)
    measure = loop.validation.measure if loop.validation else "loss"
    kept = best or loop.progress.step
    return {
        "train_seconds": sum(line["seconds"] for line in lines),
        "block_seconds": tuple(sum(line["seconds"] for line in lines[block]) for block in blocks(len(lines), 32)),
        "tokens": sum(line["tokens"] for line in lines),
        "steps": len(lines),
        "final_loss": sum(losses[-10:]) / len(losses[-10:]) if losses else None,
        "losses": losses,
        "rewards": tuple(line["reward"] for line in lines if "reward" in line),
        "step_seconds_p50": percentile([line["seconds"] for line in lines], 0.5) if lines else 0.0,
        "validation": tuple((each["step"], each["held_out"][measure]) for each in evaluations),
        "validation_loss": next((each["held_out"].get("loss") for each in evaluations if each["step"] == kept), None),
        "held_out_losses": tuple(each["held_out"]["loss"] for each in evaluations if "loss" in each["held_out"]),
        "held_out_steps": tuple(each["step"] for each in evaluations if "loss" in each["held_out"]),
        "curve_points": thinned(lines),
        "best_step": best if evaluations else None,
    }


def _notes(job: TrainJob, loop: Loop, foreign: bool) -> list[str]:
    """Collects notes for the report."""
    settings, notes = job.training, []
    if foreign:
        notes.append("a checkpoint of an interrupted training run with other settings was found and not resumed from")
    if (most := loop.progress.most_rows) < settings.micro_batch_size:
        notes.append(
            f"memory ran out: batches of {settings.batch_size} rows went through the model at most"
            f" {most} at a time, which changes no result"
        )
    if (
        settings.precision != "fp32"
        and settings.weights == "fp32"
        and job.base.device == "cpu"
        and not (settings.precision == "bf16" and fast_bfloat16())
    ):
        notes.append(f"this CPU has no fast {settings.precision} products: `precision=fp32` would be faster")
    if (done := loop.progress.step) < loop.steps:
        notes.append(f"stopped at step {done} of {loop.steps}: {settings.patience} evaluations without improvement")
    supervised = settings.stage in ("sft", "pretrain")
    if supervised and (whole := whole_logits_note(loop.model)):
        notes.append(whole)
    if coefficient := router_coefficient(loop.model):
        notes.append(
            f"the router's auxiliary loss is part of the loss, times {coefficient:g}, as the model's configuration asks"
            if supervised
            else f"the router's auxiliary loss, which the model's configuration asks for, is no part of `stage={settings.stage}`"
        )
    return notes


def _keep_last_good(
    job: TrainJob,
    tokenizer: Any,
    stage: Stage,
    loop: Loop,
    recorder: Recorder,
    *,
    broken: bool,
) -> str:
    """Saves the last weights that gave a finite loss beside the artifact's folder; returns a sentence that says where."""
    model, done = loop.model, recorder.steps[-1]["step"] if recorder.steps else 0
    if broken:
        found, _ = loop.checkpoints.newest()
        if found:
            loop.checkpoints.load_weights(found.step)
        done = found.step if found and loop.loss_is_finite() else 0
    finite = all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad)
    if not done or not finite:
        return "no weights with a finite loss were kept"
    folder = job.output.with_name(f"{job.output.name}-step-{done}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _save(job, model, tokenizer, stage, folder)
    return f"the weights of step {done} are in {folder}"


def _save(job: TrainJob, model: Any, tokenizer: Any, stage: Stage, folder: Path) -> None:
    stage.finish(model, folder)
    if job.saves == "checkpoint":
        model = model.to(getattr(torch, job.base.dtype))
    save_artifact(model, tokenizer, folder, saves=job.saves, method=job.method)


def _save_with_figures(
    job: TrainJob,
    model: Any,
    tokenizer: Any,
    stage: Stage,
    trained: Trained,
    check: Callable[[Path, Tensor], None] | None,
    phases: Phases,
    keep: Callable[[], None],
) -> Trained:
    """Saves the artifact with the figures of the run, and removes the run's checkpoints; returns the figures.

    Raises:
        OSError, SafetensorError: The artifact cannot be written. `keep` has then saved what was trained for the next try, if
            there is room.
    """
    if job.base.dtype == "float32":  # 16-bit weights are saved in the type in which they are scored
        hold_trained(model, torch.float32)
    saved = probe_logits(model) if check else None
    try:
        with whole_folder(job.output) as folder:
            _save(job, model, tokenizer, stage, folder)
            if check and saved is not None:
                check(folder, saved)
            trained = replace(trained, phase_seconds=phases.seconds())
            record = {"train_key": job.train_key, "trained": asdict(trained)}
            (folder / TRAINED_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    except (OSError, SafetensorError):  # such as a full disk: without the half artifact, a checkpoint may have room
        shutil.rmtree(partial(job.output), ignore_errors=True)
        with suppress(OSError, SafetensorError, RuntimeError):
            keep()
        raise
    shutil.rmtree(job.state, ignore_errors=True)
    return trained
