"""Log-likelihoods from hidden states: the output head and the softmax over it, a block of the vocabulary at a time.

A block of logits is made, read and thrown away while it is in the cache, and the blocks' softmax sums are joined at the end,
so that a row of logits over the whole vocabulary never exists. That asks for a model whose logits are what its head gives;
what is done to them afterwards (soft-capping, scaling) wants them whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_BLOCK = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Logits of a block: on CPU, as many as stay in the cache."""
_NARROWEST = 512
_TRIED = 6


@dataclass(frozen=True)
class Scored:
    """What was read off the model, for each token to score."""

    loglikelihoods: Tensor
    """`[targets]`, as exact as they are to be added."""
    greedy: Tensor
    """`[targets]`, bool: whether it is the likeliest; all False where that was not asked."""


def last_head(model: Any, device: torch.device) -> nn.Linear | None:
    """A causal model's output head, where its logits are what the head gives; None where anything comes after it.

    Args:
        model: The model; it is run on a few tokens.
        device: Of its input.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or "forward" in vars(head) or head._forward_hooks:  # which may add to what it gives
        return None
    given: list[Tensor] = []
    ids = torch.linspace(0, len(head.weight) - 1, _TRIED, device=device).long()  # some, as of padding, may be all zeros
    handle = head.register_forward_hook(lambda _, __, output: given.append(output))
    try:
        logits = model(input_ids=ids[None], use_cache=False).logits
    finally:
        handle.remove()
    same = len(given) == 1 and given[0].shape == logits.shape and torch.equal(given[0].float(), logits.float())
    return head if same else None


@contextmanager
def hidden_instead(head: nn.Linear) -> Iterator[list[Tensor]]:
    """While entered, the head hands on nothing, and what it is given goes to the list."""
    given: list[Tensor] = []

    def forward(hidden: Tensor) -> Tensor:
        given.append(hidden)
        return hidden[..., :1]

    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield given
    finally:
        del head.forward


def score_hidden(head: nn.Linear, hidden: Tensor, which: Tensor, targets: Tensor, *, greedy: bool) -> Scored:
    """Log-likelihoods of targets from what the head is given; head and softmax in float32.

    Args:
        head: Of a model whose logits are what it gives.
        hidden: `[rows, width]`.
        which: `[targets]`, the row of each.
        targets: `[targets]` token ids.
        greedy: Whether to tell which targets are the likeliest.
    """
    hidden = hidden.float()
    words = _words(hidden)
    room = hidden.new_empty(len(hidden) * words)

    def blocks() -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(head.weight), words):
            weight = head.weight[start : start + words].float()
            block = room[: len(hidden) * len(weight)].view(len(hidden), len(weight))
            if head.bias is None:
                torch.mm(hidden, weight.t(), out=block)
            else:
                torch.addmm(head.bias[start : start + words].float(), hidden, weight.t(), out=block)
            yield start, block

    return _joined(blocks(), which, targets, greedy)


def score_logits(logits: Tensor, which: Tensor, targets: Tensor, *, greedy: bool = True) -> Scored:
    """Log-likelihoods of targets from logits, softmax in float32; float32 logits are overwritten.

    Args:
        logits: `[rows, vocabulary]`.
        which: `[targets]`, the row of each.
        targets: `[targets]` token ids.
        greedy: Whether to tell which targets are the likeliest.
    """
    words = _words(logits)
    starts = range(0, logits.shape[1], words)
    return _joined(((start, logits[:, start : start + words].float()) for start in starts), which, targets, greedy)


def _words(rows: Tensor) -> int:
    return max(_NARROWEST, _BLOCK.get(rows.device.type, _BLOCK["cpu"]) // max(1, len(rows)))


def _joined(blocks: Iterable[tuple[int, Tensor]], which: Tensor, targets: Tensor, greedy: bool) -> Scored:
    """Log-likelihoods from logits that come in blocks of the vocabulary.

    Args:
        blocks: The first word of each, and its `[rows, words]` float32 logits, which are overwritten.
        which: `[targets]`, the row of each.
        targets: `[targets]` token ids.
        greedy: Whether to tell which targets are the likeliest.
    """
    tops, sums = [], []
    taken = torch.empty(len(targets), dtype=torch.float64)
    best = torch.zeros(len(targets), dtype=torch.bool)
    owner = torch.zeros(len(targets), dtype=torch.long)
    for number, (start, block) in enumerate(blocks):
        top = block.amax(-1)
        here = ((targets >= start) & (targets < start + block.shape[1])).nonzero()[:, 0]
        if len(here):
            rows, columns = which[here].to(block.device), (targets[here] - start).to(block.device)
            logits = block[rows, columns]
            taken[here] = logits.double().cpu()
            owner[here] = number
            if greedy:
                rivals = (logits == top[rows]).nonzero()[:, 0]  # few; an earlier word may be as likely
                best[here[rivals.cpu()]] = (block[rows[rivals]].argmax(-1) == columns[rivals]).cpu()
        tops.append(top)
        sums.append(block.sub_(top[:, None]).exp_().sum(-1))
    every = torch.stack(tops)
    highest = every.amax(0)
    total = (torch.stack(sums).double() * (every - highest).double().exp()).sum(0)
    normalisers = (highest.double() + total.log()).cpu()
    best &= every.argmax(0).cpu()[which] == owner
    return Scored(taken - normalisers[which], best)
