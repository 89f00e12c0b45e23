"""Computes log-likelihoods from hidden states: output head and softmax, one block of the vocabulary at a time.

A block of logits is computed, used and discarded while it is in the processor's cache, and the softmax sums of the blocks
are joined at the end, so that logits over the whole vocabulary never exist. This needs a model whose logits are the output
of its head: further steps (soft-capping, scaling) need the logits of the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_BLOCK = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Logits in a block; on CPU, as many as fit into the cache."""
_NARROWEST = 512
"""Fewest vocabulary entries in a block."""
_HALF = (torch.bfloat16, torch.float16)
_TRIED = 6
"""Tokens with which `final_head` runs the model."""


@dataclass(frozen=True)
class Scored:
    """Scores of target tokens."""

    loglikelihoods: Tensor
    """`[targets]`, in the precision in which they are to be summed."""
    greedy: Tensor
    """`[targets]`, bool: whether the target is the most likely token; all False if this was not asked for."""


def final_head(model: Any, device: torch.device) -> nn.Linear | None:
    """A causal model's output head, if the model's logits are the head's output; None if another step follows.

    Args:
        model: The model; it is run on a few tokens.
        device: Device of its input.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or "forward" in vars(head) or head._forward_hooks:  # a hook may change the output
        return None
    given: list[Tensor] = []
    ids = torch.linspace(0, len(head.weight) - 1, _TRIED, device=device).long()  # several: padding may embed as zeros
    handle = head.register_forward_hook(lambda _, __, output: given.append(output))
    try:
        logits = model(input_ids=ids[None], use_cache=False).logits
    finally:
        handle.remove()
    same = len(given) == 1 and given[0].shape == logits.shape and torch.equal(given[0].float(), logits.float())
    return head if same else None


@contextmanager
def capture_hidden(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Context manager inside which the head computes nothing, and its inputs are appended to the list."""
    given: list[Tensor] = []

    def forward(hidden: Tensor) -> Tensor:
        given.append(hidden)
        return hidden[..., :1]

    with replaced_forward(head, forward):
        yield given


@contextmanager
def replaced_forward(layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Context manager inside which a layer computes something else; another replacement around it is restored."""
    before = vars(layer).get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before


def float32_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """Multiplies `[rows, width]` hidden states with a weight `[out, width]`, in float32.

    A GPU multiplies 16-bit numbers exactly and adds the products in float32, so it needs no copies in float32.
    """
    if hidden.is_cuda and hidden.dtype == weight.dtype and hidden.dtype in _HALF:
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    return functional.linear(hidden.float(), weight.float())


def score_hidden(head: nn.Linear, hidden: Tensor, which: Tensor, targets: Tensor, *, greedy: bool) -> Scored:
    """Computes log-likelihoods of targets from the head's input; head and softmax in float32.

    Args:
        head: The output head of a model whose logits are the head's output.
        hidden: `[rows, width]`.
        which: `[targets]`, the row of each target.
        targets: `[targets]` token ids.
        greedy: Whether to compute which targets are the most likely tokens.
    """
    width = _block_width(hidden)
    on_cpu = hidden.device.type == "cpu"
    hidden = hidden.float() if on_cpu else hidden
    buffer = hidden.new_empty(len(hidden) * width if on_cpu else 0)

    def blocks() -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(head.weight), width):
            if not on_cpu:
                logits = float32_product(hidden, head.weight[start : start + width])
                yield start, logits if head.bias is None else logits + head.bias[start : start + width].float()
                continue
            weight = head.weight[start : start + width].float()
            block = buffer[: len(hidden) * len(weight)].view(len(hidden), len(weight))
            if head.bias is None:
                torch.mm(hidden, weight.t(), out=block)
            else:
                torch.addmm(head.bias[start : start + width].float(), hidden, weight.t(), out=block)
            yield start, block

    return _joined(blocks(), which, targets, greedy)


def score_logits(logits: Tensor, which: Tensor, targets: Tensor, *, greedy: bool = True) -> Scored:
    """Computes log-likelihoods of targets from logits, softmax in float32; float32 logits are overwritten.

    Args:
        logits: `[rows, vocabulary]`.
        which: `[targets]`, the row of each target.
        targets: `[targets]` token ids.
        greedy: Whether to compute which targets are the most likely tokens.
    """
    width = _block_width(logits)
    starts = range(0, logits.shape[1], width)
    return _joined(((start, logits[:, start : start + width].float()) for start in starts), which, targets, greedy)


def _block_width(rows: Tensor) -> int:
    """Vocabulary entries in a block."""
    return max(_NARROWEST, _BLOCK.get(rows.device.type, _BLOCK["cpu"]) // max(1, len(rows)))


def _joined(blocks: Iterable[tuple[int, Tensor]], which: Tensor, targets: Tensor, greedy: bool) -> Scored:
    """Computes log-likelihoods from logits that come in blocks of the vocabulary.

    Args:
        blocks: The first token id of each block, and its `[rows, ids]` float32 logits, which are overwritten.
        which: `[targets]`, the row of each target.
        targets: `[targets]` token ids.
        greedy: Whether to compute which targets are the most likely tokens.
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
                rivals = (logits == top[rows]).nonzero()[:, 0]  # few; an earlier token may be as likely
                best[here[rivals.cpu()]] = (block[rows[rivals]].argmax(-1) == columns[rivals]).cpu()
        tops.append(top)
        sums.append(block.sub_(top[:, None]).exp_().sum(-1))
    every = torch.stack(tops)
    highest = every.amax(0)
    total = (torch.stack(sums).double() * (every - highest).double().exp()).sum(0)
    normalisers = (highest.double() + total.log()).cpu()
    best &= every.argmax(0).cpu()[which] == owner
    return Scored(taken - normalisers[which], best)
