"""A model as a policy: how likely it was to write what was written, and the model as it was when training began.

Both are exact for every method: the log-probabilities come from the model's own forward pass, and where training began is what
the trained tensors held then, put back for a moment.
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

_FED = ("input_ids", "labels", "attention_mask")


def answer_logprobs(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """`[rows]` log-probabilities of whole answers.

    Args:
        model: A causal language model, or what a method put around one.
        batch: `input_ids`, `labels` (of answers alone) and `attention_mask`, `[rows, width]`, padded on the right.
    """
    fed = {name: batch[name] for name in _FED}
    return row_sums(label_logprobs(model, fed), fed["labels"])


def token_logprobs(model: Any, batch: Mapping[str, Any], *, temperature: float = 1.0) -> Tensor:
    """`[rows, kept]` log-probabilities of the answers' tokens, 0 where `answer_mask` is.

    Args:
        model: A causal language model, or what a method put around one.
        batch: As for `answer_logprobs`.
        temperature: By which logits are divided, as they were when the answers were drawn.
    """
    found = label_logprobs(model, {name: batch[name] for name in _FED}, temperature=temperature)
    return _in_place(found, batch["labels"])


def token_logprobs_and_values(
    model: Any, batch: Mapping[str, Any], head: ScalarHead, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Twice `[rows, kept]`: as `token_logprobs`, and what a head foresees before each token.

    Args:
        model: A causal language model, or what a method put around one.
        batch: As for `answer_logprobs`.
        head: Reads the hidden states that the model's own head is given.
        temperature: As for `token_logprobs`.
    """
    fed = {name: batch[name] for name in _FED}
    logprobs, states = label_logprobs_and_states(model, fed, temperature=temperature)
    return _in_place(logprobs, batch["labels"]), _in_place(head(states)[:, 0], batch["labels"])


def _in_place(values: Tensor, labels: Tensor) -> Tensor:
    """`[labels]` numbers of labelled tokens where `answer_mask` has them."""
    mask = answer_mask(labels)
    return torch.zeros_like(mask).masked_scatter(mask > 0, values)


def answer_mask(labels: Tensor) -> Tensor:
    """`[rows, kept]` float32, 1 where a row has a label, from the first place on that any row has one at.

    Example:
        >>> answer_mask(torch.tensor([[-100, -100, 5, 6], [-100, -100, 7, -100]]))
        tensor([[1., 1.],
                [1., 0.]])
    """
    learned = labels[:, 1:] != IGNORED
    return learned[:, int(learned.any(0).float().argmax()) :].float()


class Beginning:
    """A model's trained tensors as they are now, to be put back for a moment later.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> beginning = Beginning(layer)
        >>> _ = layer.weight.data.add_(1)
        >>> with beginning.of(layer):
        ...     then = float(layer.weight)
        >>> round(float(layer.weight) - then)
        1
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """The model as it was; what training made of it comes back at the end."""
        parameters = dict(model.named_parameters())
        trained = {name: parameters[name].data for name in self._tensors}
        _give(parameters, self._tensors)
        try:
            yield
        finally:
            _give(parameters, trained)


def _give(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    torch.clear_autocast_cache()  # it would go on with copies of what they held
    for name, tensor in tensors.items():
        parameters[name].data = tensor
