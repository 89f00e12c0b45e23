"""Supervised fine-tuning on answers, given their prompts; and continued pretraining on every token of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.finetune.training.batches import Packing, Padding
from harness.finetune.training.loss import label_loss
from harness.finetune.training.stage import Stage
from harness.jobs import Example, TrainJob
from harness.tokens.training_labels import IGNORED, blocks, tokenise


class Sft(Stage):
    """Learns the answers and not the prompts; with the stage `pretrain`, whole texts."""

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        function = blocks if job.training.stage == "pretrain" else tokenise
        self._tokenise = partial(function, tokenizer=tokenizer, max_length=max_length)
        super().__init__(self._tokenise(job.examples))
        self._smoothing = job.training.label_smoothing
        pad_id = tokenizer.pad_token_id or 0
        self._batch = Packing(model, pad_id) if job.training.packing else Padding(pad_id)

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._tokenise(examples).rows

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self._batch(rows)

    def items(self, batch: dict[str, Any]) -> int:
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        # evaluations use no smoothing: held-out losses stay comparable between variants
        smoothing = self._smoothing if torch.is_grad_enabled() else 0.0
        return label_loss(model, batch, label_smoothing=smoothing) / items


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Sft:
    """See `harness.finetune.training.stage`."""
    return Sft(job, model, tokenizer, max_length)
