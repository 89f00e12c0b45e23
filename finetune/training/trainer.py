"""Trains one variant: from a method's model and rendered examples to an artifact on disk and the figures of its making.

What counts as training time is the wall time of the optimizer steps, as `harness.finetune.training.recorder` takes it. An interrupted
training continues from its last checkpoint and gives the same weights.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from harness.engine.prefix_cache import learns_a_prompt
from harness.errors import UserError
from harness.finetune.training.adaptive_rank import adaptive_rank
from harness.finetune.training.loss import whole_logits_note
from harness.finetune.training.recorder import Recorder
from harness.finetune.training.stage import Stage, load_stage
from harness.finetune.training.steps import Diverged, StageTrainer, last_checkpoint, step_of
from harness.finetune.training.validation import Headline, distance
from harness.jobs import TRAINED_FILE, Trained, TrainJob
from harness.models.artifacts import save_artifact
from harness.models.load import count_parameters
from harness.models.measure import EnergyMeter, MemoryMeter, fast_bfloat16
from harness.settings import TrainingSettings, optimizer_name
from harness.stats.quantiles import percentile
from harness.storage import whole_folder

_KEYS_AND_VALUES = ("PREFIX_TUNING", "CARTRIDGE")
"""What peft learns as keys and values, which it loses where activations are computed again."""


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
        UserError: Nothing is trainable, no row has an answer that fits, or settings do not go with the method.
        Diverged: The loss or the gradient is no finite number any more.
    """
    _refuse(job, model)
    settings, device = job.training, job.base.device
    for parameter in model.parameters():
        if parameter.requires_grad:  # 16-bit weights lose small updates
            parameter.data = parameter.data.float()
    model.config.use_cache = False
    stage = load_stage(job, model, tokenizer, min(max_length, settings.max_length))
    total, trainable = _parameters(model)
    steps = steps_of(settings, len(stage.rows), stage.updates)
    headline = Headline(job.monitor, tokenizer, context=max_length, seed=settings.seed) if job.monitor else None
    recorder = Recorder(job.log, on_step, device)
    ranks = adaptive_rank(model, steps)
    trainer = _trainer(
        job,
        model,
        stage,
        steps,
        headline,
        recorder=recorder,
        train_key=job.train_key,
        held_out=stage.encode(job.validation) if job.validation else (),
        ranks=ranks,
    )
    checkpoint, foreign = last_checkpoint(job.state, job.train_key)
    recorder.rewind(step_of(checkpoint) if checkpoint else 0)
    set_seed(settings.seed)
    memory, energy = MemoryMeter(baseline_rss_bytes, device), EnergyMeter(device)
    try:
        with memory, energy:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Diverged as error:
        kept = _keep_last_good(job, model, tokenizer, stage, trainer, recorder, broken=error.broken)
        raise Diverged(f"{error}; lower the rate ({kept})") from None
    if ranks is not None:
        ranks.finish()
    trained = Trained(
        **_figures(recorder, trainer.state.best_global_step, headline is not None),
        samples=len(stage.rows),
        parameters_total=total,
        parameters_trainable=trainable,
        truncated=stage.truncated,
        dropped=stage.dropped,
        lost_tokens=stage.lost_tokens,
        checkpointing=settings.checkpointing,
        micro_batch_size=trainer.most_rows,
        peaks=vars(memory.peaks()),
        energy_joules=None if checkpoint else energy.joules,  # that of the steps before an interruption is not known
        notes=tuple(_notes(job, model, trainer, foreign)),
    )
    _leave_artifact(job, trainer.accelerator.unwrap_model(model), tokenizer, stage, trained)
    return trained


def steps_of(settings: TrainingSettings, rows: int, updates: int = 1) -> int:
    """Optimizer steps of a training.

    Args:
        settings: `steps`, or `epochs` and `batch_size`.
        rows: Of the data.
        updates: Steps that follow one another on the same rows; then only whole batches count.

    Example:
        >>> steps_of(TrainingSettings(lr=1e-3, epochs=2.0, batch_size=8, micro_batch_size=8), rows=20)
        6
    """
    if settings.steps is not None:
        return settings.steps
    batches = math.ceil(rows / settings.batch_size) if updates == 1 else max(1, rows // settings.batch_size) * updates
    return math.ceil((settings.epochs or 1.0) * batches)


def _parameters(model: Any) -> tuple[int, int]:
    """Total and trained parameters, a reward head among them; that which PPO foresees rewards with is not left behind."""
    total, trainable = count_parameters(model)
    beside = count_parameters(model.value_head)[0] if hasattr(model, "value_head") else 0
    return total - beside, trainable - beside


def _refuse(job: TrainJob, model: Any) -> None:
    """What cannot be trained, before anything is."""
    settings = job.training
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            f"method `{job.method.name}` left nothing to train on this model",
            hint="a method must leave at least one parameter with requires_grad",
        )
    if settings.checkpointing and learns_a_prompt(model) and model.active_peft_config.peft_type in _KEYS_AND_VALUES:
        raise UserError(
            f"method `{job.method.name}` cannot be trained with activation checkpointing: what it learns are keys and"
            " values, which are not there when activations are computed again",
            hint="leave out `checkpointing`",
        )
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad and p.is_floating_point()}
    if settings.precision == "fp32" and frozen & {torch.float16, torch.bfloat16} and job.base.quant is None:
        raise UserError(
            f"`precision=fp32` cannot be had from a base in {job.base.dtype}",
            hint="load it in 32 bits, `--dtype float32`, or leave out `precision`",
        )


def _trainer(
    job: TrainJob, model: Any, stage: Stage, steps: int, headline: Headline | None, **options: Any
) -> StageTrainer:
    quantized = getattr(model, "is_quantized", False)
    if quantized and not hasattr(model, "peft_config"):
        model.is_quantized = False  # the library knows of no trainable weights on such a base but peft's
    patience = job.training.patience
    looks = bool(job.validation) or headline is not None
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.log.with_suffix(".tensorboard"))
    try:
        return StageTrainer(
            stage,
            job.training,
            model=model,
            args=_arguments(job, steps, stage, headline),
            headline=headline,
            callbacks=[EarlyStoppingCallback(patience)] if looks and patience else [],
            **options,
        )
    except (ValueError, ImportError) as error:  # a GPU without bfloat16, say
        raise UserError(
            f"method `{job.method.name}` cannot be trained: {str(error).splitlines()[0][:300]}",
            hint="see `harness env`, and the settings of the training",
        ) from error
    finally:
        if quantized:
            model.is_quantized = True


def _arguments(job: TrainJob, steps: int, stage: Stage, headline: Headline | None) -> TrainingArguments:
    settings = job.training
    looks: dict[str, Any] = {"eval_strategy": "no", "save_strategy": "no"}
    if job.validation or headline is not None:
        rounds = math.ceil(distance(steps, settings.evaluate_every) / stage.updates)
        looks = {
            "eval_strategy": "steps",
            "eval_steps": rounds * stage.updates,  # a look may leave a checkpoint: none within a round
            "save_strategy": "best",
            "load_best_model_at_end": True,
            "metric_for_best_model": "headline" if headline is not None else "loss",
            "greater_is_better": headline is not None and headline.metric.higher_is_better,
        }
    arguments = TrainingArguments(
        output_dir=str(job.state),
        per_device_train_batch_size=min(settings.batch_size, len(stage.rows)),
        max_steps=steps,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        optim=optimizer_name(settings.optimizer),
        restore_callback_states_from_checkpoint=True,  # how long patience has lasted
        train_sampling_strategy="random",  # by length, each batch of a mix would be of one task
        remove_unused_columns=False,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        use_cpu=job.base.device == "cpu",
        activation_checkpointing=settings.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.checkpointing else None,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_total_limit=1,
        disable_tqdm=True,
        report_to=list(job.report_to) or "none",
        run_name=job.log.stem,
        seed=settings.seed,
        dataloader_pin_memory=False,
        **looks,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one device: no DataParallel over all that are visible
    return arguments


def _figures(recorder: Recorder, best: int | None, by_headline: bool) -> dict[str, Any]:
    """What the log says of a training."""
    lines, looks = recorder.steps, recorder.looks
    losses = tuple(line["loss"] for line in lines)
    monitored = "headline" if by_headline else "loss"
    kept = best or (lines[-1]["step"] if lines else 0)
    return {
        "train_seconds": sum(line["seconds"] for line in lines),
        "tokens": sum(line["tokens"] for line in lines),
        "steps": len(lines),
        "final_loss": sum(losses[-10:]) / len(losses[-10:]) if losses else None,
        "losses": losses,
        "rewards": tuple(line["reward"] for line in lines if "reward" in line),
        "step_seconds_p50": percentile([line["seconds"] for line in lines], 0.5) if lines else 0.0,
        "validation": tuple((look["step"], look["held_out"][monitored]) for look in looks),
        "validation_loss": next((look["held_out"].get("loss") for look in looks if look["step"] == kept), None),
        "held_out_losses": tuple(look["held_out"]["loss"] for look in looks if "loss" in look["held_out"]),
        "best_step": best if looks else None,
    }


def _notes(job: TrainJob, model: Any, trainer: StageTrainer, foreign: bool) -> list[str]:
    """What is to be known of how it was trained."""
    settings, notes = job.training, []
    if foreign:
        notes.append("an interrupted training with other settings lay in its place and was not taken up")
    if trainer.most_rows < settings.micro_batch_size:
        notes.append(
            f"memory ran out: batches of {settings.batch_size} rows went through the model at most"
            f" {trainer.most_rows} at a time, which changes no result"
        )
    if (
        settings.precision != "fp32"
        and job.base.device == "cpu"
        and not (settings.precision == "bf16" and fast_bfloat16())
    ):
        notes.append(f"this processor has no {settings.precision} products: `precision=fp32` would be faster")
    if (done := trainer.state.global_step) < trainer.state.max_steps:
        notes.append(f"stopped at step {done} of {trainer.state.max_steps}: {settings.patience} looks without a gain")
    if settings.stage in ("sft", "pretrain") and (whole := whole_logits_note(model)):
        notes.append(whole)
    return notes


def _keep_last_good(
    job: TrainJob, model: Any, tokenizer: Any, stage: Stage, trainer: StageTrainer, recorder: Recorder, *, broken: bool
) -> str:
    """Leaves the last weights that gave a number beside where the artifact would be; says where they are."""
    done = recorder.steps[-1]["step"] if recorder.steps else 0
    if broken:
        checkpoint, _ = last_checkpoint(job.state, job.train_key)
        if checkpoint:
            trainer._load_from_checkpoint(checkpoint)
        done = step_of(checkpoint) if checkpoint and trainer.gives_numbers() else 0
    finite = all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad)
    if not done or not finite:
        return "no weights that give a number were kept"
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


def _leave_artifact(job: TrainJob, model: Any, tokenizer: Any, stage: Stage, trained: Trained) -> None:
    """What was trained, and the figures of its training."""
    with whole_folder(job.output) as folder:
        _save(job, model, tokenizer, stage, folder)
        record = {"train_key": job.train_key, "trained": asdict(trained)}
        (folder / TRAINED_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    shutil.rmtree(job.state, ignore_errors=True)
