"""What stages that learn from rewards have in common: prompts for rows, answers written meanwhile, and a judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.finetune.stages.judges import load_judge
from harness.finetune.stages.policy import Beginning
from harness.finetune.stages.rollouts import Prompts, Rollouts, roll_out
from harness.finetune.training.figures import Figures
from harness.jobs import Example, TrainJob


class Online:
    """The rows and batches of such a stage; what it minimises is its own.

    Args:
        job: What to train on, and what judges.
        model: The policy, as it is before training.
        tokenizer: Its tokenizer.
        max_length: Tokens of a row at most.
        beta: How strongly the policy is held to where it began, unless the job says so.
    """

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int, *, beta: float) -> None:
        self._settings, self._tokenizer = job.training, tokenizer
        self._prompts = Prompts(tokenizer, max_length, job.training)
        encoded = self._prompts.encode(job.examples)
        self.rows = encoded.rows
        self.truncated, self.dropped, self.lost_tokens = encoded.cut, encoded.dropped, encoded.lost_tokens
        self._judge = load_judge(job.reward)
        self._beta = beta if self._settings.beta is None else self._settings.beta
        self._beginning = Beginning(model) if self._beta else None
        self.figures = Figures()

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._prompts.encode(examples).rows

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self._prompts.collate(rows)

    def items(self, batch: dict[str, Any]) -> int:
        return len(batch["index"]) * self._settings.generations

    def _answered(self, model: Any, batch: dict[str, Any]) -> Rollouts:
        """The model's answers to a batch of prompts, judged."""
        return roll_out(model, self._tokenizer, self._prompts.of(batch), self._settings, self._judge)
