"""GRPO: makes answers more likely that are better than the other answers to the same prompt.

Shao et al., "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", 2024 (arXiv 2402.03300): several
answers to each prompt, rewards normalised within a prompt, a clipped ratio, and a penalty for leaving the reference policy. As in
the paper, each batch of answers is used for one update. The reference policy is the same model with its first trained tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from harness.finetune.stages.online import OnlineStage
from harness.finetune.stages.policy import answer_mask, clipped_gain, token_logprobs, token_mean
from harness.finetune.training.validation import evaluation_mode
from harness.jobs import TrainJob

BETA = 0.04
CLIP = 0.2


class Grpo(OnlineStage):
    """Learns from prompts, which the current policy answers in each step.

    Figures: mean reward, its standard deviation within a prompt, tokens per answer, share of answers that the model ended, and
    the divergence from the reference policy.
    """

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        if job.training.generations < 2:
            raise UserError(
                "GRPO compares several answers to each prompt, and `generations=1` gives one",
                hint="set `generations` to at least 2; 8 is usual",
            )
        super().__init__(job, model, tokenizer, max_length, beta=BETA)

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        """Returns the loss; for held-out prompts the negative mean reward, so that lower is better."""
        rollouts = self._roll_out(model, batch)
        batch["tokens"] = rollouts.batch["tokens"]
        self.figures.add(reward=rollouts.rewards, ended=rollouts.ended)
        if not torch.is_grad_enabled():
            return -rollouts.rewards.sum() / items
        groups = rollouts.rewards.view(-1, self._settings.generations)
        mask = answer_mask(rollouts.batch["labels"])
        logprobs = token_logprobs(model, rollouts.batch, temperature=self._settings.temperature)
        reference = logprobs.detach()
        if self._reference is not None:
            with evaluation_mode(model), self._reference.active_in(model):
                reference = token_logprobs(model, rollouts.batch, temperature=self._settings.temperature)
        losses = grpo_losses(
            logprobs, logprobs.detach(), reference, advantages(groups).flatten(), mask, beta=self._beta
        )
        divergences = token_mean(divergence(logprobs.detach(), reference), mask)
        self.figures.add(spread=groups.std(1), length=mask.sum(1), kl=divergences)
        return losses.sum() / items


def advantages(rewards: Tensor) -> Tensor:
    """Normalises `[prompts, generations]` rewards within each prompt: minus the mean, divided by the standard deviation.

    Example:
        >>> advantages(torch.tensor([[0.0, 1.0]])).round(decimals=2)
        tensor([[-0.7100,  0.7100]])
    """
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimates the KL divergence from the reference policy at each token, by the paper's estimator, which is never negative."""
    difference = reference - logprobs
    return difference.exp() - difference - 1


def grpo_losses(
    logprobs: Tensor,
    old: Tensor,
    reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float,
    clip: float = CLIP,
) -> Tensor:
    """Returns `[answers]` losses, each the mean over its tokens.

    Args:
        logprobs: `[answers, tokens]` of the policy, with gradients.
        old: The same for the policy that generated the answers.
        reference: The same for the reference policy.
        advantages: `[answers]`.
        mask: `[answers, tokens]`, 1 where there is a token.
        beta: Weight of the divergence from the reference policy.
        clip: Ratios of `logprobs` to `old` outside 1 ± `clip` add no further gain.
    """
    gain = clipped_gain(logprobs, old, advantages[:, None], clip)
    return -token_mean(gain - beta * divergence(logprobs, reference), mask)


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Grpo:
    """See `harness.finetune.training.stage`."""
    return Grpo(job, model, tokenizer, max_length)
