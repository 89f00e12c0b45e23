"""Direct preference optimisation: better answers are made likelier than worse ones, without a reward model.

Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", 2023 (arXiv 2305.18290). What
the model as it starts gives for each answer is computed once, before the first step: no second model is kept in memory.
With label smoothing it is the conservative form, which takes some pairs to be labelled wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import is_out_of_memory
from harness.finetune.stages.pairs import PairPadding, encode_pairs
from harness.finetune.stages.policy import answer_logprobs
from harness.finetune.training.figures import Figures
from harness.finetune.training.micro_batches import length, tokens_at_once
from harness.finetune.training.validation import evaluation_mode
from harness.jobs import Example, TrainJob

BETA = 0.1


class Dpo:
    """Pairs, each with what the model as it started gave for both answers."""

    updates = 1

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        self._tokenizer, self._max_length, self._settings = tokenizer, max_length, job.training
        self._beta = BETA if job.training.beta is None else job.training.beta
        self.collate = PairPadding(tokenizer.pad_token_id or 0)
        self.figures = Figures()
        """Implied rewards of both answers, their difference, and how often the better one has the higher."""
        encoded = encode_pairs(job.examples, tokenizer, max_length)
        self.truncated, self.dropped, self.lost_tokens = encoded.cut, encoded.dropped, encoded.lost_tokens
        self.rows = self._with_reference(model, encoded.rows)
        held_out = encode_pairs(job.validation, tokenizer, max_length).rows if job.validation else []
        self._held_out = self._with_reference(model, held_out)

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._held_out  # encoded before the first step, when the model was its own reference

    def begin(self, step: int) -> None:
        pass

    def items(self, batch: dict[str, Any]) -> int:
        return len(batch["input_ids"]) // 2

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        logprobs = answer_logprobs(model, batch)
        better, worse = (self._beta * (logprobs - batch["reference"].to(logprobs))).chunk(2)
        smoothing = self._settings.label_smoothing if torch.is_grad_enabled() else 0.0  # a look is not smoothed
        losses = dpo_losses(better - worse, smoothing)
        self.figures.add(chosen=better, rejected=worse, margin=better - worse, accuracy=(better > worse).float())
        return losses.sum() / items

    def finish(self, model: Any, folder: Path) -> None:
        pass

    def _with_reference(self, model: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with the log-probabilities of both answers, by the model as it is now; the longest come first."""
        most, tokens = self._settings.micro_batch_size, tokens_at_once(_device(model).type, self._max_length)
        waiting = sorted(rows, key=length)
        while waiting:
            count = max(1, min(most, tokens // length(waiting[-1])))
            chosen = waiting[-count:]
            try:
                logprobs = self._logprobs(model, chosen)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(chosen) == 1:
                    raise
                most = len(chosen) // 2
                continue
            for row, better, worse in zip(chosen, *logprobs, strict=True):
                row["reference"] = (better, worse)
            del waiting[-count:]
        return rows

    def _logprobs(self, model: Any, rows: list[dict[str, Any]]) -> list[list[float]]:
        """Of the better answers, and of the worse ones."""
        precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self._settings.precision)
        device, batch = _device(model), self.collate(rows)
        batch = {name: each.to(device) if isinstance(each, Tensor) else each for name, each in batch.items()}
        with evaluation_mode(model), torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            return answer_logprobs(model, batch).view(2, -1).tolist()


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def dpo_losses(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`[pairs]` losses of the differences between implied rewards.

    Args:
        margins: `[pairs]`: beta times (how much likelier the better answer became, less the same of the worse one).
        label_smoothing: Share of pairs taken to be labelled the wrong way round.

    Example:
        >>> round(float(dpo_losses(torch.zeros(1))), 4)
        0.6931
    """
    right, wrong = functional.logsigmoid(margins), functional.logsigmoid(-margins)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Dpo:
    """See `harness.finetune.training.stage`."""
    return Dpo(job, model, tokenizer, max_length)
