"""Attention in a packed tree on a GPU: one call for all branches, and one for the prefix that they share.

A branch is a run of tokens without a fork. It attends to the tokens above it in the tree and, causally, to itself: a sequence whose
queries are the last of its keys. Sequences of unlike lengths run in one call of the flash kernel, which also returns the logarithm
of each softmax's sum; by these, branches and prefix are joined (Dao et al., "FlashAttention", 2022, arXiv 2205.14135, section 3.1).
A mask over the whole pack would rule that kernel out and compute the scores of every pair of tokens.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.engine.attention import Unsupported, attention_state, join_prefix, refuse_unknown
from harness.tokens.trie import Trie

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Branches:
    """A piece of a tree, as sequences of queries and keys."""

    attention: ClassVar[str] = "harness_branches"
    before: int
    """Tokens of the prefix, which all branches see."""
    fed: int
    """Tokens of the tree up to the end of this piece."""
    new: int
    """Tokens of this piece."""
    keys: Tensor
    """`[keys]` places, among all tokens fed, of the keys of one branch after the other."""
    query_ends: Tensor
    """`[branches + 1]`, int32: 0, and where the queries of each branch end among the new tokens."""
    key_ends: Tensor
    """`[branches + 1]`, int32: the same for `keys`."""
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, tree: Trie, start: int, stop: int, before: int, device: torch.device) -> Self:
        """Cuts the tokens start … stop − 1 of a tree where it forks.

        Args:
            tree: The tree.
            start: The first token of the piece.
            stop: The end of the piece, excluded.
            before: Tokens of the prefix.
            device: Of the model.
        """
        depths = tree.depths
        path: list[int] = []
        for at in range(start):
            path[depths[at] :] = [at]
        keys: list[int] = []
        query_ends, key_ends = [0], [0]
        forks = [at for at in range(start + 1, stop) if depths[at] != depths[at - 1] + 1]
        for low, high in itertools.pairwise([start, *forks, stop]):
            path[depths[low] :] = range(low, high)
            keys += path
            query_ends.append(high - start)
            key_ends.append(len(keys))
        return cls(
            before,
            stop,
            stop - start,
            torch.tensor(keys, device=device),
            torch.tensor(query_ends, dtype=torch.int32, device=device),
            torch.tensor(key_ends, dtype=torch.int32, device=device),
            max(b - a for a, b in itertools.pairwise(query_ends)),
            max(b - a for a, b in itertools.pairwise(key_ends)),
        )


def runs_branches(config: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this attention may be tried for a model: on a GPU, in 16 bits, where its attention is torch's own."""
    return device.type == "cuda" and dtype in _HALF and config._attn_implementation == "sdpa"


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes the attention of every new token to its branch, to the tokens above it and to the prefix.

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
    piece: Branches = attention_state()
    if (query.shape[2], key.shape[2]) != (piece.new, piece.before + piece.fed):
        raise Unsupported("its layers attend to other tokens than those that were fed")
    places = piece.keys + piece.before
    keys, values = (tensor[0].transpose(0, 1)[places] for tensor in (key, value))
    run = _flash_branches if query.is_cuda else branches_plainly
    out, sums = run(query[0].transpose(0, 1), keys, values, piece, scaling)
    out, sums = out[None], sums[None]
    if piece.before:
        first_keys, first_values = key[:, :, : piece.before], value[:, :, : piece.before]
        whole = _flash_whole if query.is_cuda else whole_plainly
        out = join_prefix(out, sums, query, first_keys, first_values, partial(whole, scale=scaling))
    return out, None


def _flash_branches(
    query: Tensor, key: Tensor, value: Tensor, piece: Branches, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Runs all branches in one call.

    Returns:
        `[new, heads, dimension]`, and `[heads, new]` logarithms of the softmax's sums.
    """
    out, sums, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, piece.query_ends, piece.key_ends, piece.most_queries, piece.most_keys, 0.0, True, False,
        scale=scale,
    )  # fmt: skip
    if sums.shape != (query.shape[1], len(query)):
        raise Unsupported(f"the kernel's sums are of shape {tuple(sums.shape)}")
    return out, sums


def _flash_whole(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    out, sums, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, False, False, scale=scale
    )
    return out, sums


def branches_plainly(
    query: Tensor, key: Tensor, value: Tensor, piece: Branches, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Does the same branch by branch, by plain products: how the call of the kernel is tested without a GPU."""
    times = query.shape[1] // key.shape[1]
    outs, sums = [], []
    for (low, high), (first, last) in zip(
        itertools.pairwise(piece.query_ends.tolist()), itertools.pairwise(piece.key_ends.tolist()), strict=True
    ):
        own = query[low:high].transpose(0, 1)
        keys, values = (t[first:last].transpose(0, 1).repeat_interleave(times, 0) for t in (key, value))
        scores = own @ keys.transpose(-1, -2) * (own.shape[-1] ** -0.5 if scale is None else scale)
        seen = torch.ones(scores.shape[1:], dtype=torch.bool).tril(scores.shape[2] - scores.shape[1])
        scores = scores.masked_fill(~seen, float("-inf"))
        outs.append((scores.softmax(-1) @ values).transpose(0, 1))
        sums.append(scores.logsumexp(-1))
    return torch.cat(outs), torch.cat(sums, 1)


def whole_plainly(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Computes attention without a mask, and the logarithms of its sums, by plain products."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


ALL_ATTENTION_FUNCTIONS.register(Branches.attention, _attention)
