"""GRPO: answers that are better than the others to the same prompt are made likelier.

Shao et al., "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", 2024 (arXiv 2402.03300): several
answers to each prompt, rewards normalised within them, a clipped ratio, and a penalty for going far from where training began.
As there, one update follows each round of writing. The reference is the model itself with its trained tensors put back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from harness.finetune.stages.online import Online
from harness.finetune.stages.policy import answer_mask, token_logprobs
from harness.finetune.training.validation import evaluation_mode
from harness.jobs import TrainJob

BETA = 0.04
CLIP = 0.2


class Grpo(Online):
    """Prompts, to be answered by the model as it is when their turn comes.

    Figures: mean reward, its deviation within prompts, tokens of an answer, share ended, distance from the beginning.
    """

    updates = 1

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        if job.training.generations < 2:
            raise UserError(
                "GRPO compares the answers to a prompt with one another, and `generations=1` gives one",
                hint="at least 2; 8 is usual",
            )
        super().__init__(job, model, tokenizer, max_length, beta=BETA)

    def begin(self, step: int) -> None:
        pass

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        """Of held-out prompts: the mean reward, negative, so that less is better."""
        rollouts = self._answered(model, batch)
        batch["tokens"] = rollouts.batch["tokens"]
        self.figures.add(reward=rollouts.rewards, ended=rollouts.ended)
        if not torch.is_grad_enabled():
            return -rollouts.rewards.sum() / items
        groups = rollouts.rewards.view(-1, self._settings.generations)
        mask = answer_mask(rollouts.batch["labels"])
        logprobs = token_logprobs(model, rollouts.batch, temperature=self._settings.temperature)
        reference = logprobs.detach()
        if self._beginning is not None:
            with evaluation_mode(model), self._beginning.of(model):
                reference = token_logprobs(model, rollouts.batch, temperature=self._settings.temperature)
        losses = grpo_losses(
            logprobs, logprobs.detach(), reference, advantages(groups).flatten(), mask, beta=self._beta
        )
        self.figures.add(spread=groups.std(1), length=mask.sum(1), kl=_divergence(logprobs, reference, mask))
        return losses.sum() / items

    def finish(self, model: Any, folder: Path) -> None:
        pass


def advantages(rewards: Tensor) -> Tensor:
    """`[prompts, generations]` rewards as deviations from their prompt's mean, in units of their spread.

    Example:
        >>> advantages(torch.tensor([[0.0, 1.0]])).round(decimals=2)
        tensor([[-0.7100,  0.7100]])
    """
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


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
    """`[answers]` losses, each the mean over its tokens.

    Args:
        logprobs: `[answers, tokens]` of the policy, with gradients.
        old: The same by the policy that wrote them.
        reference: The same by the policy that training began with.
        advantages: `[answers]`.
        mask: `[answers, tokens]`, 1 where there is a token.
        beta: Weight of the divergence from the reference.
        clip: How far the ratio of `logprobs` to `old` counts.
    """
    ratio = (logprobs - old).exp()
    gain = torch.min(ratio * advantages[:, None], ratio.clamp(1 - clip, 1 + clip) * advantages[:, None])
    less = reference - logprobs
    penalty = less.exp() - less - 1
    return -((gain - beta * penalty) * mask).sum(1) / mask.sum(1).clamp(min=1)


def _divergence(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    less = reference - logprobs.detach()
    return ((less.exp() - less - 1) * mask).sum(1) / mask.sum(1).clamp(min=1)


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Grpo:
    """See `harness.finetune.training.stage`."""
    return Grpo(job, model, tokenizer, max_length)
