"""Supervised fine-tuning on answers, given their prompts; and post-pretraining on plain text, every token of it learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.finetune.training.batches import Packing, Padding
from harness.finetune.training.figures import Figures
from harness.finetune.training.loss import label_loss
from harness.jobs import Example, TrainJob
from harness.tokens.training_labels import IGNORED, Tokenised, blocks, tokenise


class Sft:
    """Answers are learned and prompts are not; with the stage `pretrain`, whole texts are."""

    updates = 1

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._smoothing = job.training.label_smoothing
        self.figures = Figures()
        self._encode = blocks if job.training.stage == "pretrain" else tokenise
        encoded = self._tokenised(job.examples)
        self.rows = encoded.rows
        self.truncated, self.dropped, self.lost_tokens = encoded.cut, encoded.dropped, encoded.lost_tokens
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._batch = Packing(model, pad_id) if job.training.packing else Padding(pad_id)

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._tokenised(examples).rows

    def begin(self, step: int) -> None:
        pass

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self._batch(rows)

    def items(self, batch: dict[str, Any]) -> int:
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        # a look is not smoothed: its losses are on one scale, whatever a variant is trained with
        smoothing = self._smoothing if torch.is_grad_enabled() else 0.0
        return label_loss(model, batch, label_smoothing=smoothing) / items

    def finish(self, model: Any, folder: Path) -> None:
        pass

    def _tokenised(self, examples: Sequence[Example]) -> Tokenised:
        return self._encode(examples, self._tokenizer, self._max_length)


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Sft:
    """See `harness.finetune.training.stage`."""
    return Sft(job, model, tokenizer, max_length)
