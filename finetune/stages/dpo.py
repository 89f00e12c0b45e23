"""Direct preference optimisation: makes better answers more likely than worse ones, without a reward model.

Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", 2023 (arXiv 2305.18290). The
reference policy's log-probability of each answer is computed once, before the first step, so no second model stays in memory.
With label smoothing this is conservative DPO, which assumes that some pairs are labelled wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.finetune.stages.pairs import PairStage
from harness.finetune.stages.policy import answer_logprobs
from harness.finetune.stages.references import row_logprobs
from harness.jobs import Example, TrainJob

BETA = 0.1


class Dpo(PairStage):
    """Learns from pairs, each with the reference policy's log-probabilities of both answers.

    Figures: implied rewards of both answers, their difference, and how often the better answer has the higher one.
    """

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        super().__init__(job, tokenizer, max_length)
        self._max_length, self._settings = max_length, job.training
        self._beta = BETA if job.training.beta is None else job.training.beta
        self._add_reference(model, self.rows)
        self._held_out = super().encode(job.validation) if job.validation else []
        self._add_reference(model, self._held_out)

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._held_out  # encoded before the first step, when the model was the reference policy

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        logprobs = answer_logprobs(model, batch)
        better, worse = (self._beta * (logprobs - batch["reference"].to(logprobs))).chunk(2)
        smoothing = self._settings.label_smoothing if torch.is_grad_enabled() else 0.0  # evaluations use no smoothing
        losses = dpo_losses(better - worse, smoothing)
        self.figures.add(chosen=better, rejected=worse, margin=better - worse, accuracy=(better > worse).float())
        return losses.sum() / items

    def _add_reference(self, model: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Adds to each row the model's current log-probabilities of both answers."""
        found = row_logprobs(model, rows, self.collate, self._settings, self._max_length)
        for row, reference in zip(rows, found, strict=True):
            row["reference"] = reference


def dpo_losses(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Returns the `[pairs]` losses for differences between implied rewards.

    Args:
        margins: `[pairs]`: beta times (the gain in log-probability of the better answer, minus that of the worse one).
        label_smoothing: Assumed share of pairs whose labels are swapped.

    Example:
        >>> round(float(dpo_losses(torch.zeros(1))), 4)
        0.6931
    """
    right, wrong = functional.logsigmoid(margins), functional.logsigmoid(-margins)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Dpo:
    """See `harness.finetune.training.stage`."""
    return Dpo(job, model, tokenizer, max_length)
