"""Finds the most likely tokens of each row in blocks of the vocabulary.

On CPU, the largest logits of blocks take a tenth of the time of one index over 150,000 logits (12 rows: 0.1 ms, 0.9); the
index is then searched in one block.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 128
"""Logits in a block."""


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


def near_top(logits: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the logits that are close to the largest one of their row.

    Args:
        logits: `[rows, vocabulary]`.
        margin: `[rows, 1]`, the largest distance.

    Returns:
        `[found]` rows and `[found]` token ids; a token may come twice.
    """
    if logits.shape[-1] < _BLOCK:
        rows, ids = (logits >= logits.amax(-1, keepdim=True) - margin).nonzero(as_tuple=True)
        return rows, ids
    tops = _tops(logits)
    floor = tops.amax(-1, keepdim=True) - margin
    rows, blocks = (tops >= floor).nonzero(as_tuple=True)
    columns = _columns(blocks, logits.shape[-1])
    which, places = (logits[rows[:, None], columns] >= floor[rows]).nonzero(as_tuple=True)
    return rows[which], columns[which, places]


def _tops(logits: Tensor) -> Tensor:
    """The largest logit of each block; the last block ends with the vocabulary and overlaps the one before it."""
    whole = logits.shape[-1] // _BLOCK * _BLOCK
    blocks = logits[:, :whole].view(len(logits), -1, _BLOCK).amax(-1)
    return torch.cat([blocks, logits[:, -_BLOCK:].amax(-1, keepdim=True)], -1)


def _columns(blocks: Tensor, vocabulary: int) -> Tensor:
    """`[blocks, _BLOCK]` token ids of some blocks."""
    starts = (blocks * _BLOCK).clamp(max=vocabulary - _BLOCK)
    return starts[:, None] + torch.arange(_BLOCK, device=blocks.device)
