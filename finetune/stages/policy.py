"""A model as a policy: log-probabilities of answers, the policy gradient's clipped objective, and the reference policy.

Both the policy and its reference are exact for every method: log-probabilities come from the model's own forward pass, and the
reference policy is the same model with its trained tensors temporarily set to the values they had before training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.finetune.training.loss import label_logprobs, label_logprobs_and_states, row_sums
from harness.models.reward_head import ScalarHead
from harness.tokens.training_labels import IGNORED

_INPUTS = ("input_ids", "labels", "attention_mask")


def answer_logprobs(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """Returns `[rows]` log-probabilities of whole answers.

    Args:
        model: A causal language model, with or without an adapter.
        batch: `input_ids`, `labels` (on answers only) and `attention_mask`, `[rows, width]`, padded on the right.
    """
    inputs = {name: batch[name] for name in _INPUTS}
    return row_sums(label_logprobs(model, inputs), inputs["labels"])


def token_logprobs(model: Any, batch: Mapping[str, Any], *, temperature: float = 1.0) -> Tensor:
    """Returns `[rows, kept]` log-probabilities of the answers' tokens, 0 where `answer_mask` is 0.

    Args:
        model: A causal language model, with or without an adapter.
        batch: As for `answer_logprobs`.
        temperature: Divides the logits, as when the answers were sampled.
    """
    found = label_logprobs(model, {name: batch[name] for name in _INPUTS}, temperature=temperature)
    return _scattered(found, batch["labels"])


def token_logprobs_and_values(
    model: Any, batch: Mapping[str, Any], head: ScalarHead, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns `token_logprobs`, and in the same shape the values that a value head predicts before each token.

    Args:
        model: A causal language model, with or without an adapter.
        batch: As for `answer_logprobs`.
        head: Reads the hidden states that are the input of the model's output head.
        temperature: As for `token_logprobs`.
    """
    inputs = {name: batch[name] for name in _INPUTS}
    logprobs, states = label_logprobs_and_states(model, inputs, temperature=temperature)
    return _scattered(logprobs, batch["labels"]), _scattered(head(states)[:, 0], batch["labels"])


def _scattered(values: Tensor, labels: Tensor) -> Tensor:
    """Places the `[labels]` numbers of labelled tokens where `answer_mask` is 1."""
    mask = answer_mask(labels)
    return torch.zeros_like(mask).masked_scatter(mask > 0, values)


def answer_mask(labels: Tensor) -> Tensor:
    """Returns `[rows, kept]` float32, 1 where a row has a label; starts at the first position that has one in any row.

    Example:
        >>> answer_mask(torch.tensor([[-100, -100, 5, 6], [-100, -100, 7, -100]]))
        tensor([[1., 1.],
                [1., 0.]])
    """
    learned = labels[:, 1:] != IGNORED
    return learned[:, int(learned.any(0).float().argmax()) :].float()


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Averages `[answers, tokens]` numbers over the tokens of each answer; returns `[answers]`, 0 for an empty answer.

    Example:
        >>> token_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
        tensor([2.])
    """
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)


def clipped_gain(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Computes PPO's clipped objective (arXiv 1707.06347, equation 7) for each token, to be maximised.

    Args:
        logprobs: `[answers, tokens]` of the policy, with gradients.
        old_logprobs: The same for the policy that generated the answers.
        advantages: `[answers, tokens]`, or `[answers, 1]`.
        clip: Ratios of the two policies outside 1 ± `clip` add no further gain.
    """
    ratio = (logprobs - old_logprobs).exp()
    return torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


class ReferencePolicy:
    """Keeps a copy of a model's trained tensors as they are now, and can put them back for a while.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> reference = ReferencePolicy(layer)
        >>> _ = layer.weight.data.add_(1)
        >>> with reference.active_in(layer):
        ...     before = float(layer.weight)
        >>> round(float(layer.weight) - before)
        1
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    @contextmanager
    def active_in(self, model: nn.Module) -> Iterator[None]:
        """Makes the model the reference policy within the block."""
        parameters = dict(model.named_parameters())
        trained = {name: parameters[name].data for name in self._tensors}
        _set(parameters, self._tensors)
        try:
            yield
        finally:
            _set(parameters, trained)


def _set(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    torch.clear_autocast_cache()  # it holds 16-bit copies of the previous values
    for name, tensor in tensors.items():
        parameters[name].data = tensor
