"""Distance between the logits of a trained model and those of its export, on the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.jobs import LogitDistance

KEPT = 32
"""Logits are compared at the last tokens of each text: a vocabulary of 150,000 takes 19 MB for a text."""


@torch.inference_mode()
def last_logits(model: Any, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Computes the logits of the last tokens of each text.

    Args:
        model: In evaluation mode; learned tokens before a text are left out of the result.
        texts: Token ids.

    Returns:
        For each text `[KEPT tokens at most, vocabulary]`, float32 on the host.
    """
    found = []
    for ids in texts:
        logits = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=True).logits[0]
        found.append(logits[-min(KEPT, len(ids)) :].float().cpu())
    return found


def logit_distance(trained: Sequence[Tensor], exported: Sequence[Tensor]) -> LogitDistance:
    """Compares two models' `last_logits` of the same texts.

    A vocabulary that the export has padded is compared over the tokens that both have.

    Example:
        >>> logit_distance([torch.tensor([[0.0, 1.0]])], [torch.tensor([[2.0, 3.0]])])
        LogitDistance(largest=0.0, mean_kl=0.0, same_argmax=1.0, tokens=1, prompts=1)
    """
    words = min(trained[0].shape[-1], exported[0].shape[-1])
    a, b = (torch.cat([each[:, :words] for each in logits]) for logits in (trained, exported))
    largest = ((a - a.mean(-1, keepdim=True)) - (b - b.mean(-1, keepdim=True))).abs().max()
    logp, logq = functional.log_softmax(a, -1), functional.log_softmax(b, -1)
    kl = (logp.exp() * (logp - logq)).sum(-1).clamp(min=0)
    same = (a.argmax(-1) == b.argmax(-1)).float().mean()
    return LogitDistance(float(largest), float(kl.mean()), float(same), len(a), len(trained))
