"""PPO: makes answers more likely that turn out better than predicted, in steps that are clipped.

Schulman et al., "Proximal Policy Optimization Algorithms", 2017 (arXiv 1707.06347), on answers as in Ouyang et al., 2022 (arXiv
2203.02155): a reward at the end of the answer, a penalty at every token for leaving the reference policy, generalised advantage
estimation (arXiv 1506.02438), and a value head on the model's own hidden states that predicts the rewards still to come. The
value head is used in training only, and discarded afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.finetune.stages.online import OnlineStage
from harness.finetune.stages.policy import answer_mask, clipped_gain, token_logprobs_and_values, token_mean
from harness.finetune.stages.rollouts import Rollouts
from harness.finetune.training.validation import evaluation_mode
from harness.jobs import TrainJob
from harness.models.reward_head import head_for

BETA = 0.05
CLIP = 0.2
VALUE_WEIGHT = 0.1
DISCOUNT, LAMBDA = 1.0, 0.95
UPDATES = 4
"""Optimizer steps on the same answers; clipping limits how far they can go."""


@dataclass
class _Experience:
    """Answers to a micro-batch of prompts, with the numbers that stay fixed during the updates on them."""

    rollouts: Rollouts
    logprobs: Tensor
    values: Tensor
    advantages: Tensor


class Ppo(OnlineStage):
    """Learns from prompts, with a value head that predicts rewards.

    Figures: mean reward, tokens per answer, share of answers that the model ended, and the divergence from the reference policy.
    """

    updates = UPDATES

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        super().__init__(job, model, tokenizer, max_length, beta=BETA)
        self._head = head_for(model)
        model.value_head = self._head  # where the optimizer finds it
        self._experience: dict[tuple[int, ...], _Experience] = {}
        """The experience of this round, by the indices of its prompts."""

    def begin(self, step: int) -> None:
        """Empties the experience at the start of a round, and again when its first step is repeated."""
        if step % self.updates == 0:
            self._experience.clear()

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        """Returns the loss; for held-out prompts the negative mean reward, so that lower is better.

        If memory runs out in the middle of a round, the smaller micro-batches get new answers.
        """
        if not torch.is_grad_enabled():
            rollouts = self._roll_out(model, batch)
            self.figures.add(reward=rollouts.rewards, ended=rollouts.ended)
            return -rollouts.rewards.sum() / items
        which = tuple(batch["index"].tolist())
        if which not in self._experience:
            self._experience[which] = self._collect(model, batch)
        experience = self._experience[which]
        batch["tokens"] = experience.rollouts.batch["tokens"]
        logprobs, values, mask = self._logprobs_and_values(model, experience.rollouts)
        losses = ppo_losses(logprobs, experience.logprobs, values, experience.values, experience.advantages, mask)
        return losses.sum() / items

    def finish(self, model: Any, folder: Path) -> None:
        del model.value_head

    def _collect(self, model: Any, batch: dict[str, Any]) -> _Experience:
        """Generates answers with the current policy, and computes the advantage of each token."""
        rollouts = self._roll_out(model, batch)
        with evaluation_mode(model):
            logprobs, values, mask = self._logprobs_and_values(model, rollouts)
            reference = logprobs
            if self._reference is not None:
                with self._reference.active_in(model):
                    reference = self._logprobs_and_values(model, rollouts)[0]
        rewards = token_rewards(rollouts.rewards, logprobs - reference, mask, beta=self._beta)
        found = advantages(rewards, values, mask)
        divergence = ((logprobs - reference) * mask).sum(1)
        self.figures.add(reward=rollouts.rewards, ended=rollouts.ended, length=mask.sum(1), kl=divergence)
        return _Experience(rollouts, logprobs, values, found)

    def _logprobs_and_values(self, model: Any, rollouts: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """Returns `[answers, tokens]` log-probabilities, predicted values before each token, and the mask of tokens."""
        logprobs, values = token_logprobs_and_values(
            model, rollouts.batch, self._head, temperature=self._settings.temperature
        )
        return logprobs, values, answer_mask(rollouts.batch["labels"])


def token_rewards(rewards: Tensor, divergence: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """Returns `[answers, tokens]` rewards: the penalty at each token, plus the reward of the answer at its last token.

    Args:
        rewards: `[answers]`.
        divergence: `[answers, tokens]`: log-probability of each token minus that under the reference policy.
        mask: `[answers, tokens]`, 1 where there is a token.
        beta: Weight of the penalty.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * positions).argmax(1, keepdim=True)
    return (-beta * divergence * mask).scatter_add(1, last, rewards[:, None].to(divergence))


def advantages(rewards: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Returns `[answers, tokens]` generalised advantage estimates (arXiv 1506.02438); the value after the last token is 0.

    Example:
        >>> advantages(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.ones(1, 2))
        tensor([[0.4750, 0.5000]])
    """
    found = torch.zeros_like(values)
    later = torch.zeros_like(values[:, 0])
    following = torch.zeros_like(later)
    for position in range(values.shape[1] - 1, -1, -1):
        here = mask[:, position]
        error = rewards[:, position] + DISCOUNT * following - values[:, position]
        later = here * (error + DISCOUNT * LAMBDA * later) + (1 - here) * later
        following = here * values[:, position] + (1 - here) * following
        found[:, position] = here * later
    return found


def ppo_losses(
    logprobs: Tensor, old_logprobs: Tensor, values: Tensor, old_values: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """Returns `[answers]` losses: policy loss plus weighted value loss, both clipped, averaged over an answer's tokens.

    Args:
        logprobs: `[answers, tokens]` of the policy, with gradients.
        old_logprobs: The same for the policy that generated the answers.
        values: `[answers, tokens]` predicted by the value head, with gradients.
        old_values: The same when the answers were generated.
        advantages: `[answers, tokens]`.
        mask: `[answers, tokens]`, 1 where there is a token.
    """
    gain = clipped_gain(logprobs, old_logprobs, advantages, CLIP)
    returns = advantages + old_values
    clipped_values = old_values + (values - old_values).clamp(-CLIP, CLIP)
    error = torch.max((values - returns) ** 2, (clipped_values - returns) ** 2) / 2
    return token_mean(VALUE_WEIGHT * error - gain, mask)


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Ppo:
    """See `harness.finetune.training.stage`."""
    return Ppo(job, model, tokenizer, max_length)
