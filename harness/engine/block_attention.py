"""Attention in a packed tree, block by block, so that few scores are computed between tokens of different rows.

With one mask over a whole pack, every token is multiplied with every other, though most of them are masked. Cut where rows
branch off, the pack falls into blocks. Each block attends to itself and to the few tokens above it in the tree; all blocks
together attend to the shared prefix, without a mask. The two parts of the softmax are joined by their sums (Dao et al.,
"FlashAttention", 2022, arXiv 2205.14135, section 3.1). Only on CPU, whose kernel returns those sums.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy
import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.engine.attention import Unsupported, attention_state, join_prefix, refuse_unknown
from harness.tokens.trie import Trie

_CALL = 1500
"""Fixed cost of a block in units of one attention score: the call, and copying the keys above the block."""

_flash: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


@dataclass(frozen=True)
class Block:
    """Consecutive tokens of the tree."""

    new: slice
    """Its tokens among those of the piece."""
    seen: slice | Tensor
    """Places, among all tokens fed, of the tokens above the block and of its own."""
    mask: Tensor | None
    """`[new, seen]`, added to the scores; None: causal attention within the block, and no tokens above it."""


@dataclass(frozen=True)
class Blocks:
    """A piece of a tree, cut into blocks."""

    attention: ClassVar[str] = "harness_blocks"
    before: int
    """Tokens of the prefix, which all blocks see."""
    fed: int
    """Tokens of the tree up to the end of this piece."""
    new: int
    """Tokens of this piece."""
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, tree: Trie, start: int, stop: int, before: int, dtype: torch.dtype) -> Self:
        """Cuts the tokens start … stop − 1 of a tree.

        Args:
            tree: The tree.
            start: The first token of the piece.
            stop: The end of the piece, excluded.
            before: Tokens of the prefix.
            dtype: Type of the masks.
        """
        ends = torch.tensor(tree.ends)
        cuts = [start + cut for cut in cheapest_cuts(tree.depths[start:stop])]
        blocks = tuple(_block(ends, low, high, start, dtype) for low, high in itertools.pairwise(cuts))
        return cls(before, stop, stop - start, blocks)


def cheapest_cuts(depths: Sequence[int]) -> list[int]:
    """Finds the cuts of a piece of a tree with the least cost: scores to compute, and a fixed cost for each block.

    Args:
        depths: Depth of each token in the tree.

    Returns:
        The first token of every block, and at the end the number of tokens.

    Example:
        >>> cheapest_cuts([*range(100), *range(1, 100), *range(50, 100)])
        [0, 100, 199, 249]
    """
    branches = [at for at in range(1, len(depths)) if depths[at] <= depths[at - 1]]
    starts = numpy.array([0, *branches, len(depths)])
    above = numpy.array([depths[at] for at in starts[:-1]])
    least, came_from = numpy.zeros(len(starts)), [0] * len(starts)
    for number in range(1, len(starts)):
        new = starts[number] - starts[:number]
        costs = least[:number] + new * (above[:number] + new) + _CALL
        came_from[number] = int(costs.argmin())
        least[number] = costs[came_from[number]]
    cuts = [len(starts) - 1]
    while cuts[-1]:
        cuts.append(came_from[cuts[-1]])
    return [int(starts[cut]) for cut in reversed(cuts)]


def sees(ends: Tensor, new: Tensor, places: Tensor) -> Tensor:
    """Tells which tokens of a tree attend to which: each attends to the tokens of its own row up to itself.

    Args:
        ends: `[tokens]`, the `ends` of the tree (`harness.tokens.trie`).
        new: `[new]`, places of the tokens that see.
        places: `[places]`, places of the tokens that they may see.

    Returns:
        `[new, places]`, bool.
    """
    return (places <= new[:, None]) & (new[:, None] < ends[places])


def _block(ends: Tensor, low: int, high: int, start: int, dtype: torch.dtype) -> Block:
    above = (ends[:low] > low).nonzero()[:, 0]
    places = torch.cat([above, torch.arange(low, high)])
    visible = sees(ends, torch.arange(low, high), places)
    first = int(places[0])
    causal = first == low and bool((ends[low:high] >= high).all())
    mask = None if causal else torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, -math.inf)
    seen = slice(first, high) if len(places) == high - first else places
    return Block(slice(low - start, high - start), seen, mask)


def blockwise(config: Any, device: torch.device) -> bool:
    """Whether block attention may be tried for a model: on CPU, where its attention is torch's own."""
    return _flash is not None and device.type == "cpu" and config._attn_implementation == "sdpa"


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes the attention of every new token to its block and to the prefix.

    Args:
        module: The attention module.
        query: `[1, heads, new, dimension]`.
        key: `[1, key heads, prefix + fed, dimension]`.
        value: Shaped like `key`.
        attention_mask: The mask of `Prefixes.unmasked`.
        scaling: Factor of the scores.
        options: Everything else that the model passes.

    Returns:
        `[1, new, heads, dimension]`, and None for the attention weights.

    Raises:
        Unsupported: The model passes options that are not supported, or other tokens than were fed.
    """
    refuse_unknown(attention_mask, options)
    piece: Blocks = attention_state()
    _, heads, count, _ = query.shape
    if (count, key.shape[2]) != (piece.new, piece.before + piece.fed):
        raise Unsupported("its layers attend to other tokens than those that were fed")
    query, key, value = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (query, key, value))
    times = heads // key.shape[1]
    own_keys, own_values = (_repeated(tensor[:, :, piece.before :], times) for tensor in (key, value))
    out = query.new_empty(1, count, heads, value.shape[-1])
    sums = torch.empty(1, heads, count)
    for block in piece.blocks:
        found, sums[:, :, block.new] = _flash(
            query[:, :, block.new],
            own_keys[:, :, block.seen],
            own_values[:, :, block.seen],
            is_causal=block.mask is None,
            attn_mask=None if block.mask is None else block.mask[None, None],
            scale=scaling,
        )
        out[:, block.new] = found.transpose(1, 2)
    if piece.before:
        first_keys, first_values = key[:, :, : piece.before], value[:, :, : piece.before]
        out = join_prefix(out, sums, query, first_keys, first_values, partial(_flash, scale=scaling))
    return out, None


def _repeated(tensor: Tensor, times: int) -> Tensor:
    """Repeats every head of `[1, heads, tokens, dimension]`."""
    return tensor if times == 1 else tensor.repeat_interleave(times, 1)


ALL_ATTENTION_FUNCTIONS.register(Blocks.attention, _attention)
