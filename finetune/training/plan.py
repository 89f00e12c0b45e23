"""Plans a training run: the memory that it takes, how many rows would fit, and its floating-point operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from transformers import PretrainedConfig

from harness.errors import UserError, brief
from harness.finetune.training.flops import expert_share, flops_per_token, measured_flops
from harness.finetune.training.loss import routes_evenly
from harness.finetune.training.memory import Footprint, trace
from harness.finetune.training.micro_batches import rows_at_once
from harness.finetune.training.trained_weights import TRAINED_DTYPE
from harness.jobs import PlanJob, Planned

_UNLIMITED = 1 << 20
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def plan_training(config: PretrainedConfig, method: Callable[[Any], Any], job: PlanJob) -> Planned:
    """Plans the training run of a job, and finds how many rows of a micro-batch would fit.

    Pairs are counted as rows of supervised fine-tuning: slightly too much for a reward model, which computes no logits.

    Raises:
        UserError: See `trace`.
    """
    settings = job.training
    dtype, autocast = getattr(torch, job.base.dtype), _AUTOCAST[settings.precision]
    trained_dtype = TRAINED_DTYPE[settings.weights]
    length = min(job.length or settings.max_length, _context(config) or settings.max_length)
    rows = rows_at_once(
        settings.micro_batch_size, length, job.base.device, settings.max_length, packing=settings.packing
    )

    def traced(rows: int, labels: float = 1.0) -> Footprint:
        return trace(
            config,
            method,
            rows=rows,
            length=length,
            labels=job.label_share * labels,
            context=_context(config),
            dtype=dtype,
            quant=job.base.quant,
            autocast=autocast,
            checkpointing=settings.checkpointing,
            optimizer=settings.optimizer,
            trained_dtype=trained_dtype,
            device=job.base.device,
            trust_remote_code=job.base.trust_remote_code,
            masked=settings.packing or (rows > 1 and routes_evenly(config)),
        )

    found = traced(rows)
    largest = None if job.memory_bytes is None else _largest(found, traced, rows, job.memory_bytes)
    notes = list(found.notes)
    if getattr(config, "quantization_config", None) is not None:
        notes.append(
            "the checkpoint is quantized on disk: its weights are counted unpacked, and only adapters can be trained"
        )
    flops = flops_per_token(found.passed, config, length, checkpointing=settings.checkpointing)
    speed = None
    if job.measures_speed:
        try:
            speed = measured_flops(
                config,
                method,
                device=job.base.device,
                dtype=dtype,
                quant=job.base.quant,
                autocast=autocast,
                rows=rows,
                length=length,
                trained_dtype=trained_dtype,
                trust_remote_code=job.base.trust_remote_code,
            )
        except (UserError, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            notes.append(f"no prediction of time: steps of one layer could not be measured ({brief(error)})")
    names = {field.name for field in fields(Planned)} & {*vars(found), "peak_bytes"}
    return Planned(
        **{name: getattr(found, name) for name in names - {"notes"}},
        rows=rows,
        length=length,
        largest_micro_batch=largest,
        parameters_active=found.passed.active,
        expert_share=expert_share(config),
        flops_per_row=flops * length,
        flops_per_second=speed,
        notes=tuple(notes),
    )


def _largest(found: Footprint, traced: Callable[..., Footprint], rows: int, memory_bytes: int) -> int:
    """Finds the number of rows that fit; a single row may need no mask, and takes less than half of two.

    The peak is the largest of many moments, each of which grows linearly with the rows. A line through two traces is right as long
    as the same moment is the peak, and promises too many rows beyond that: the number that it gives is traced. Where it does not
    fit, the line between both ends gives a smaller one, which does.

    Args:
        found: The trace of `rows` rows.
        traced: Traces other numbers of rows, with fewer labels if that is asked for.
        rows: Rows of a micro-batch.
        memory_bytes: Memory that is available.
    """
    several = max(2, rows)
    few, more = found if several == rows else traced(several), traced(several + 1)
    largest = 0 if few.step_bytes > memory_bytes else _UNLIMITED
    for here, there in zip(few.by_phase, more.by_phase, strict=True):
        if there > here:
            largest = min(largest, math.floor(several + (memory_bytes - here) / (there - here)))
    if largest < 2:
        return int((found if rows == 1 else traced(1)).peak_bytes <= memory_bytes)
    if several + 1 < largest < _UNLIMITED:
        same_labels = several / largest  # the trace of the loss goes through them piece by piece, which is slow
        peak = traced(largest, same_labels).peak_bytes
        if peak > memory_bytes:
            largest = several + math.floor(
                (largest - several) * (memory_bytes - few.peak_bytes) / (peak - few.peak_bytes)
            )
    return largest


def _context(config: PretrainedConfig) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)
