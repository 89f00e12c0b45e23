"""PPO: answers that turn out better than foreseen are made likelier, in steps that cannot go far.

Schulman et al., "Proximal Policy Optimization Algorithms", 2017 (arXiv 1707.06347), on answers as in Ouyang et al., 2022 (arXiv
2203.02155): a reward at the answer's end, a penalty at every token for going from where training began, advantages by
generalised estimation (arXiv 1506.02438), and a head on the model's own hidden states that foresees what is still to come. The
head serves training alone and is thrown away after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.finetune.stages.online import Online
from harness.finetune.stages.policy import answer_mask, token_logprobs_and_values
from harness.finetune.stages.rollouts import Rollouts
from harness.finetune.training.validation import evaluation_mode
from harness.jobs import TrainJob
from harness.models.reward_head import head_for

BETA = 0.05
CLIP = 0.2
VALUE_WEIGHT = 0.1
DISCOUNT, LAMBDA = 1.0, 0.95
UPDATES = 4
"""Steps on the same answers, which is what the clipping is for."""


@dataclass
class _Experience:
    """Answers to a micro-batch of prompts with what is fixed while they are learned from."""

    rollouts: Rollouts
    logprobs: Tensor
    values: Tensor
    advantages: Tensor


class Ppo(Online):
    """Prompts, and a head that foresees rewards.

    Figures: mean reward, tokens of an answer, share ended, distance from the beginning.
    """

    updates = UPDATES

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        super().__init__(job, model, tokenizer, max_length, beta=BETA)
        self._head = head_for(model)
        model.value_head = self._head  # where the optimizer finds it
        self._experience: dict[tuple[int, ...], _Experience] = {}
        """Of this round, by the places of its prompts."""

    def begin(self, step: int) -> None:
        """A round begins with nothing known, and begins again so where memory ran out."""
        if step % self.updates == 0:
            self._experience.clear()

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        """Of held-out prompts: the mean reward, negative, so that less is better.

        Where memory runs out within a round, micro-batches that are cut otherwise from then on are answered anew.
        """
        if not torch.is_grad_enabled():
            rollouts = self._answered(model, batch)
            self.figures.add(reward=rollouts.rewards, ended=rollouts.ended)
            return -rollouts.rewards.sum() / items
        which = tuple(batch["index"].tolist())
        if which not in self._experience:
            self._experience[which] = self._gather(model, batch)
        experience = self._experience[which]
        batch["tokens"] = experience.rollouts.batch["tokens"]
        logprobs, values, mask = self._run(model, experience.rollouts)
        losses = ppo_losses(logprobs, experience.logprobs, values, experience.values, experience.advantages, mask)
        return losses.sum() / items

    def finish(self, model: Any, folder: Path) -> None:
        del model.value_head

    def _gather(self, model: Any, batch: dict[str, Any]) -> _Experience:
        """Answers of the model as it is now, and what each token was worth."""
        rollouts = self._answered(model, batch)
        with evaluation_mode(model):
            logprobs, values, mask = self._run(model, rollouts)
            reference = logprobs
            if self._beginning is not None:
                with self._beginning.of(model):
                    reference = self._run(model, rollouts)[0]
        rewards = token_rewards(rollouts.rewards, logprobs - reference, mask, beta=self._beta)
        found = advantages(rewards, values, mask)
        divergence = ((logprobs - reference) * mask).sum(1)
        self.figures.add(reward=rollouts.rewards, ended=rollouts.ended, length=mask.sum(1), kl=divergence)
        return _Experience(rollouts, logprobs, values, found)

    def _run(self, model: Any, rollouts: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """`[answers, tokens]` log-probabilities, values foreseen before each token, and where there is one."""
        logprobs, values = token_logprobs_and_values(
            model, rollouts.batch, self._head, temperature=self._settings.temperature
        )
        return logprobs, values, answer_mask(rollouts.batch["labels"])


def token_rewards(rewards: Tensor, divergence: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """`[answers, tokens]`: the penalty of each token, and at the last one the reward of the answer.

    Args:
        rewards: `[answers]`.
        divergence: `[answers, tokens]`: how much likelier each token has become.
        mask: `[answers, tokens]`, 1 where there is a token.
        beta: Weight of the penalty.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * places).argmax(1, keepdim=True)
    return (-beta * divergence * mask).scatter_add(1, last, rewards[:, None].to(divergence))


def advantages(rewards: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """`[answers, tokens]` generalised advantage estimates (arXiv 1506.02438); what was foreseen after the last token is 0.

    Example:
        >>> advantages(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.ones(1, 2))
        tensor([[0.4750, 0.5000]])
    """
    found = torch.zeros_like(values)
    later = torch.zeros_like(values[:, 0])
    following = torch.zeros_like(later)
    for place in range(values.shape[1] - 1, -1, -1):
        here = mask[:, place]
        surprise = rewards[:, place] + DISCOUNT * following - values[:, place]
        later = here * (surprise + DISCOUNT * LAMBDA * later) + (1 - here) * later
        following = here * values[:, place] + (1 - here) * following
        found[:, place] = here * later
    return found


def ppo_losses(
    logprobs: Tensor, old_logprobs: Tensor, values: Tensor, old_values: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """`[answers]` losses of policy and value, both clipped, each the mean over an answer's tokens.

    Args:
        logprobs: `[answers, tokens]` of the policy, with gradients.
        old_logprobs: The same by the policy that wrote them.
        values: `[answers, tokens]` foreseen now, with gradients.
        old_values: The same when they were written.
        advantages: `[answers, tokens]`.
        mask: `[answers, tokens]`, 1 where there is a token.
    """
    ratio = (logprobs - old_logprobs).exp()
    gain = torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
    returns = advantages + old_values
    near = old_values + (values - old_values).clamp(-CLIP, CLIP)
    error = torch.max((values - returns) ** 2, (near - returns) ** 2) / 2
    return ((VALUE_WEIGHT * error - gain) * mask).sum(1) / mask.sum(1).clamp(min=1)


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Ppo:
    """See `harness.finetune.training.stage`."""
    return Ppo(job, model, tokenizer, max_length)
