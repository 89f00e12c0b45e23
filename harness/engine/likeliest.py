"""Finds the most likely token of each row, without a search through the whole vocabulary and without a head in float32.

The largest logits of blocks take a twelfth of the time that torch takes for one index over 150,000 logits; the index is then
searched in one block. A head in bfloat16 takes half the time of a float32 one, and rounds logits to 8 bits: the few tokens that
may be the most likely one are computed again in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.engine.output_head import replaced_forward

_BLOCK = 128
"""Logits in a block."""
_NEAR = {torch.bfloat16: 2**-6, torch.float16: 2**-9}
"""Two steps of rounding, relative to the logit, by type of the head: a most likely token is not further from the top."""
_MOST = 256
"""Most tokens of a row, on average, whose logits are computed again one by one; with more, the whole head is."""


def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of each row, and the first token that has it.

    Args:
        logits: `[rows, vocabulary]`.

    Returns:
        `[rows]` logits, NaN where a row has one; `[rows]` token ids.

    Example:
        >>> likeliest(torch.tensor([[0.0, 3.0, 3.0]]))
        (tensor([3.]), tensor([1]))
    """
    if logits.device.type != "cpu" or logits.shape[-1] < _BLOCK:
        most, ids = logits.max(-1)
        return most, ids
    most, first = _tops(logits).max(-1)
    columns = _columns(first, logits.shape[-1])
    return most, columns[:, 0] + logits.gather(-1, columns).argmax(-1)


@contextmanager
def greedy_head(head: nn.Linear, product: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Context manager inside which a head gives float32 logits that are exact only for the tokens that may be the most likely.

    Args:
        head: The output head of a model whose logits are the head's output; its present `forward` gives exact logits.
        product: Computes the head in its own precision.
    """
    exactly, near = head.forward, _NEAR.get(head.weight.dtype)

    def forward(hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, -2)
        logits = product(flat).float()
        rows, ids = _near_top(logits, near or 0.0)
        if len(ids) > _MOST * len(flat):
            return exactly(hidden)
        exact = (flat[rows].float() * head.weight[ids].float()).sum(-1)
        logits[rows, ids] = exact if head.bias is None else exact + head.bias[ids].float()
        return logits.view(*hidden.shape[:-1], -1)

    if near is None:
        yield
    else:
        with replaced_forward(head, forward):
            yield


def _near_top(logits: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Rows and token ids of the logits that are at most `near`, relatively, below their row's largest one."""
    if logits.shape[-1] < _BLOCK:
        rows, ids = (logits >= _floor(logits, near)).nonzero(as_tuple=True)
        return rows, ids
    tops = _tops(logits)
    floor = _floor(tops, near)
    rows, blocks = (tops >= floor).nonzero(as_tuple=True)
    columns = _columns(blocks, logits.shape[-1])
    which, places = (logits[rows[:, None], columns] >= floor[rows]).nonzero(as_tuple=True)
    return rows[which], columns[which, places]


def _floor(logits: Tensor, near: float) -> Tensor:
    top = logits.amax(-1, keepdim=True)
    return top - near * top.abs()


def _tops(logits: Tensor) -> Tensor:
    """The largest logit of each block; the last block ends with the vocabulary and overlaps the one before it."""
    whole = logits.shape[-1] // _BLOCK * _BLOCK
    blocks = logits[:, :whole].unflatten(-1, (-1, _BLOCK)).amax(-1)
    return torch.cat([blocks, logits[:, -_BLOCK:].amax(-1, keepdim=True)], -1)


def _columns(blocks: Tensor, vocabulary: int) -> Tensor:
    """`[blocks, _BLOCK]` token ids of some blocks."""
    starts = (blocks * _BLOCK).clamp(max=vocabulary - _BLOCK)
    return starts[:, None] + torch.arange(_BLOCK, device=blocks.device)
