"""Reward modelling: which of two answers people prefer, learned as one number for each.

Pairwise loss -log sigmoid(reward of the better - reward of the worse), as in Ouyang et al., "Training language models to follow
instructions with human feedback", 2022 (arXiv 2203.02155). The number is read at the last token, where the end of the answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module, functional

from harness.finetune.stages.pairs import PairPadding, encode_pairs
from harness.finetune.training.figures import Figures
from harness.jobs import HEAD_FILE, Example, TrainJob
from harness.models.reward_head import ScalarHead, head_for, last_token_values, load_head, put_head, save_head


class Reward:
    """The model's output head gives way to one that gives a number."""

    updates = 1

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        self._job, self._tokenizer, self._max_length = job, tokenizer, max_length
        encoded = encode_pairs(job.examples, tokenizer, max_length)
        self.rows = encoded.rows
        self.truncated, self.dropped, self.lost_tokens = encoded.cut, encoded.dropped, encoded.lost_tokens
        self.collate = PairPadding(tokenizer.pad_token_id or 0)
        begun = job.start or job.base.folder  # goes on from a reward model where one is named
        self._head: ScalarHead = load_head(begun, model) if (begun / HEAD_FILE).is_file() else head_for(model)
        self._words: Module = put_head(model, self._head)
        self.figures = Figures()

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return encode_pairs(examples, self._tokenizer, self._max_length).rows

    def begin(self, step: int) -> None:
        pass

    def items(self, batch: dict[str, Any]) -> int:
        return len(batch["input_ids"]) // 2

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        better, worse = last_token_values(model, batch["input_ids"], batch["attention_mask"]).chunk(2)
        self.figures.add(accuracy=(better > worse).float(), margin=better - worse)
        return -functional.logsigmoid(better - worse).sum() / items

    def finish(self, model: Any, folder: Path) -> None:
        put_head(model, self._words)
        save_head(self._head, folder, self._job.base)


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Reward:
    """See `harness.finetune.training.stage`."""
    return Reward(job, model, tokenizer, max_length)
