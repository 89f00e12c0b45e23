"""The output head where only the most likely token is asked for: in bfloat16, with the tokens that may be it again in float32.

A step of generation reads the whole head for a few rows, so half the bytes take half the time (151,936 × 384 at 12 rows: 5.7 ms,
12.4 in float32). What rounding can change is bounded, so the most likely token is the one of float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.engine.likeliest import near_top
from harness.engine.output_head import replaced_forward
from harness.engine.products import Product, works

_ROUNDED = 2**-8
"""Largest part of itself by which rounding to bfloat16 moves a number: half the distance of its neighbours, which is `2**-7` above 1."""
_SUMMED = 2**-16
"""The same for a sum of products in float32, in parts of the product of both norms; the sums of either head are that exact."""
_MOST = 256
"""Most tokens of a row, on average, that are computed again one by one; with more, the whole head is."""
_AT_ONCE = 16384
"""Rows of the head whose norms are computed at a time."""


class GreedyHead:
    """An output head in bfloat16.

    Args:
        head: The output head of a model whose logits are the head's output; it must not change.
    """

    def __init__(self, head: nn.Linear) -> None:
        self._head = head
        weight = head.weight.detach()
        rounded = weight.bfloat16()
        self._product = Product(rounded, None, roomy=True)
        parts = list(zip(torch.split(weight, _AT_ONCE), torch.split(rounded, _AT_ONCE), strict=True))
        self._norm = max(float(part.float().norm(dim=-1).max()) for _, part in parts)
        """The largest norm of a token's weights in bfloat16."""
        self._moved = max(float((exact.float() - part.float()).norm(dim=-1).max()) for exact, part in parts)
        """The largest norm of what rounding has changed of a token's weights."""

    @staticmethod
    def suits(head: nn.Linear) -> bool:
        """Whether the processor computes in bfloat16, and the head is in a precision that this stands for."""
        return head.weight.device.type == "cpu" and works(head.weight.dtype) and works(torch.bfloat16)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Context manager inside which the head gives float32 logits that are exact for the most likely token.

        Others may be too low or too high by a rounding error, but not above it. Where too many tokens are as likely, the
        `forward` that the head has at the start computes all logits.
        """
        exactly = self._head.forward

        def forward(hidden: Tensor) -> Tensor:
            rows = hidden.flatten(0, -2)
            logits = self._logits(rows)
            return exactly(hidden) if logits is None else logits.view(*hidden.shape[:-1], -1)

        with replaced_forward(self._head, forward):
            yield

    def _logits(self, hidden: Tensor) -> Tensor | None:
        """Computes `[rows, vocabulary]` logits of `[rows, width]` hidden states; None if too many tokens are as likely."""
        bias = self._head.bias
        rounded = hidden.bfloat16()
        logits = self._product(rounded).float()
        top = logits.abs().amax(-1, keepdim=True) if bias is not None else logits.amax(-1, keepdim=True).abs()
        if bias is not None:
            logits += bias.float()
        hidden, rounded = hidden.float(), rounded.float()
        size, moved = (each.norm(dim=-1, keepdim=True) for each in (hidden, hidden - rounded))
        # by the inequality of Cauchy and Schwarz: hidden @ weight - rounded @ rounded weight = moved @ rounded weight + hidden @ its change
        products = moved * self._norm + size * self._moved + _SUMMED * size * (self._norm + self._moved)
        # for two tokens each; the one that rounding puts lower may be larger than the top by the margin, and so be rounded more
        margin = 2 * (1 + 4 * _ROUNDED) * (products + _ROUNDED * top)
        rows, ids = near_top(logits, margin)
        if len(ids) > _MOST * len(hidden):
            return None
        exact = (hidden[rows] * self._head.weight[ids].float()).sum(-1)
        logits[rows, ids] = exact if bias is None else exact + bias[ids].float()
        return logits
