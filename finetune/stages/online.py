"""Base of the stages that learn from their own answers: rows are prompts, the model answers them, a reward scores the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.finetune.stages.policy import ReferencePolicy
from harness.finetune.stages.reward_sources import load_reward_source
from harness.finetune.stages.rollouts import Prompts, Rollouts, roll_out
from harness.finetune.training.stage import Stage
from harness.jobs import Example, TrainJob


class OnlineStage(Stage):
    """Rows and batches of an online stage; a subclass adds the loss.

    Args:
        job: Names the prompts and the reward.
        model: The policy before training.
        tokenizer: The model's.
        max_length: Maximum tokens of a prompt and its answer.
        beta: Weight of the penalty for leaving the reference policy, unless the job sets one; 0: no reference policy.
    """

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int, *, beta: float) -> None:
        self._settings, self._tokenizer = job.training, tokenizer
        self._prompts = Prompts(tokenizer, max_length, job.training)
        super().__init__(self._prompts.encode(job.examples))
        self._reward = load_reward_source(job.reward)
        self._beta = beta if self._settings.beta is None else self._settings.beta
        self._reference = ReferencePolicy(model) if self._beta else None

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._prompts.encode(examples).rows

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self._prompts.collate(rows)

    def items(self, batch: dict[str, Any]) -> int:
        return len(batch["index"]) * self._settings.generations

    def _roll_out(self, model: Any, batch: dict[str, Any]) -> Rollouts:
        """Generates answers to a batch of prompts, with their rewards."""
        with self.phases("generate"):
            return roll_out(model, self._tokenizer, self._prompts.rows_of(batch), self._settings, self._reward)
