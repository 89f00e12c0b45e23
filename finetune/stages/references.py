"""Log-probabilities of the answers of many rows without gradients, as many rows at once as memory holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device

from harness.finetune.stages.policy import answer_logprobs
from harness.finetune.training.micro_batches import fewer_rows, length, tokens_at_once
from harness.finetune.training.validation import evaluation_mode
from harness.settings import TrainingSettings


def row_logprobs(
    model: Any,
    rows: Sequence[dict[str, Any]],
    collate: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
    settings: TrainingSettings,
    max_length: int,
) -> list[tuple[float, ...]]:
    """Returns for each row the log-probabilities of its answers, as the model gives them now.

    Args:
        model: A causal language model, with or without an adapter.
        rows: Tokenised rows.
        collate: Makes a micro-batch: the first answers of all rows, then their second answers if they have any.
        settings: Of the training run: precision, and the rows that pass through the model at once.
        max_length: Maximum tokens of a row.
    """
    most, tokens = settings.micro_batch_size, tokens_at_once(model.device.type, max_length)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)
    found: dict[int, tuple[float, ...]] = {}
    waiting = sorted(range(len(rows)), key=lambda index: length(rows[index]))
    while waiting:  # longest rows first
        chosen = waiting[-max(1, min(most, tokens // length(rows[waiting[-1]]))) :]
        try:
            batch = send_to_device(collate([rows[index] for index in chosen]), model.device)
            with evaluation_mode(model), torch.autocast(model.device.type, precision, precision is not None):
                logprobs = answer_logprobs(model, batch).view(-1, len(chosen)).T.tolist()
        except (RuntimeError, MemoryError) as error:
            most = fewer_rows(error, len(chosen))
            continue
        found |= {index: tuple(values) for index, values in zip(chosen, logprobs, strict=True)}
        del waiting[-len(chosen) :]
    return [found[index] for index in range(len(rows))]
