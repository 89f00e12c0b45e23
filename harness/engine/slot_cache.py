"""Rows that generate side by side: their keys and values in slots of fixed places, and the step that feeds each one more token.

The keys and values of the prefix that all rows share stay at batch size 1, and every step multiplies all rows with them at once;
each row's own keys and values are in its slot of a preallocated cache. The two parts of the softmax are joined in float32
(Juravsky et al., "Hydragen", 2024, arXiv 2402.05099).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.engine.attention import attention_state, refuse_unknown, use_attention
from harness.engine.prefix_cache import KeysAndValues, Prefixes
from harness.engine.tree_scoring import feed_tree
from harness.tokens.trie import Ids, Trie, trie

NAME = "harness_slots"
_READ = 4
"""Token budgets in a tree of prompts, with block attention: a prompt fed in one piece takes half the attention scores."""


@dataclass
class SlotCache:
    """Keys and values of the rows that are being generated.

    Args:
        prefix: Keys and values that all rows share.
        slots: Most rows.
        length: Most tokens of a row after the prefix.
    """

    prefix: KeysAndValues
    slots: int
    length: int
    keys: list[Tensor] = field(init=False)
    """`[slots, heads, length, dimension]` for each layer."""
    values: list[Tensor] = field(init=False)
    lengths: Tensor = field(init=False)
    """`[slots]` tokens of each row after the prefix."""
    filled: list[int] = field(default_factory=list)
    """The same for the rows in use, on the host."""
    rows: int = 0
    """Number of slots in use; they are the first ones."""
    blocks: list[Tensor] = field(default_factory=list)
    """`[layers, slots, heads, length, dimension]`: the keys, and the values, of all layers of one shape."""

    def lay_out(self, example: KeysAndValues) -> None:
        """Allocates the cache in the shape and precision of an example of the model's keys and values."""
        self.keys = self._room([keys for keys, _ in example])
        self.values = self._room([values for _, values in example])
        self.lengths = torch.zeros(self.slots, dtype=torch.long, device=example[0][0].device)

    def _room(self, example: Sequence[Tensor]) -> list[Tensor]:
        """Allocates the keys, or the values, of all layers; those of one shape in one block, so that one copy moves a row."""
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        for layer, tensor in enumerate(example):
            by_shape[tensor.shape[1], tensor.shape[3]].append(layer)
        room: dict[int, Tensor] = {}
        for (heads, dimension), layers in by_shape.items():
            block = example[layers[0]].new_zeros(len(layers), self.slots, heads, self.length, dimension)
            self.blocks.append(block)
            room |= zip(layers, block, strict=True)
        return [room[layer] for layer in range(len(example))]

    def add(self, past: KeysAndValues, paths: Sequence[Tensor]) -> None:
        """Adds a row for each path, with the keys and values at the path's places of `past`."""
        counts = torch.tensor([len(path) for path in paths])
        rows = torch.repeat_interleave(torch.arange(self.rows, self.rows + len(paths)), counts)
        places, rows = torch.cat(list(paths)).to(self.lengths.device), rows.to(self.lengths.device)
        at = torch.cat([torch.arange(int(count)) for count in counts]).to(self.lengths.device)
        for layer, (keys, values) in enumerate(past):
            self.keys[layer][rows, :, at] = keys[0][:, places].transpose(0, 1)
            self.values[layer][rows, :, at] = values[0][:, places].transpose(0, 1)
        self.lengths[self.rows : self.rows + len(paths)] = counts.to(self.lengths.device)
        self.filled += counts.tolist()
        self.rows += len(paths)

    def drop(self, slot: int) -> None:
        """Frees a slot; the last row moves into it."""
        self.rows -= 1
        length = self.filled.pop()
        if slot != self.rows:
            for block in self.blocks:
                block[:, slot, :, :length] = block[:, self.rows, :, :length]
            self.lengths[slot] = self.filled[slot] = length

    def prepare(self, rows: int, width: int) -> None:
        """Prepares a step in which the first slots get one token each: where the layers store it and what they see.

        Args:
            rows: Number of slots; those that are not in use get one too, which nothing reads.
            width: Number of places of a slot that are looked at: more than the tokens of any row.
        """
        lengths = self.lengths[:rows]
        self.index = torch.arange(rows, device=lengths.device)
        self.at = lengths.clamp(max=self.length - 1)  # also copies: the lengths change before the next step
        self.width = width
        places = torch.arange(width, device=lengths.device)
        self.unseen = (places[None] > self.at[:, None])[:, None, None]

    def advance(self) -> None:
        """Counts the token that every row got."""
        self.lengths[: self.rows] += 1
        self.filled = [count + 1 for count in self.filled]


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes the attention of each row's new token to the shared prefix and to the row's own tokens.

    Args:
        module: The attention module, which knows the index of its layer.
        query: `[rows, heads, 1, dimension]`.
        key: `[rows, key heads, 1, dimension]`, of the new tokens.
        value: Shaped like `key`.
        attention_mask: The mask of `Prefixes.unmasked`.
        scaling: Factor of the scores.
        options: Everything else that the model passes.

    Returns:
        `[rows, 1, heads, dimension]`, and None for the attention weights.

    Raises:
        Unsupported: The model passes options that are not supported.
    """
    refuse_unknown(attention_mask, options, "softcap")
    slot_cache: SlotCache = attention_state()
    layer = module.layer_idx
    rows, heads, _, dimension = query.shape
    groups = key.shape[1]
    each = heads // groups
    slot_cache.keys[layer][slot_cache.index, :, slot_cache.at] = key[:, :, 0]
    slot_cache.values[layer][slot_cache.index, :, slot_cache.at] = value[:, :, 0]
    keys, values = (
        slot_cache.keys[layer][:rows, :, : slot_cache.width],
        slot_cache.values[layer][:rows, :, : slot_cache.width],
    )
    query = query * (dimension**-0.5 if scaling is None else scaling)
    cap = options.get("softcap")

    def capped(scores: Tensor) -> Tensor:
        scores = scores.float()
        return scores if cap is None else torch.tanh(scores / cap) * cap

    own = capped(query.reshape(rows, groups, each, dimension) @ keys.transpose(-1, -2))
    own = own.masked_fill_(slot_cache.unseen, float("-inf"))
    top = own.amax(-1, keepdim=True)  # [rows, groups, each, 1]
    if not slot_cache.prefix:
        weights = (own - top).exp_()
        out = (weights.to(values.dtype) @ values).float() / weights.sum(-1, keepdim=True)
        return out.to(query.dtype).reshape(rows, 1, heads, values.shape[-1]), None
    first_keys, first_values = slot_cache.prefix[layer]
    queries = query.reshape(rows, groups, each, dimension).transpose(0, 1).reshape(groups, rows * each, dimension)
    common = capped(queries @ first_keys[0].transpose(-1, -2))  # [groups, rows * each, prefix], in one product
    by_row = (groups, rows, each)
    top = torch.maximum(top, common.amax(-1).view(by_row).transpose(0, 1)[..., None])
    common = common.sub_(top.transpose(0, 1).reshape(groups, rows * each, 1)).exp_()
    own = own.sub_(top).exp_()
    total = own.sum(-1, keepdim=True) + common.sum(-1).view(by_row).transpose(0, 1)[..., None]
    out = (own.to(values.dtype) @ values).float()
    out += (common.to(first_values.dtype) @ first_values[0]).float().view(*by_row, -1).transpose(0, 1)
    return (out / total).to(query.dtype).reshape(rows, 1, heads, values.shape[-1]), None


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)


def read(prefixes: Prefixes, slot_cache: SlotCache, rows: Sequence[Ids], token_budget: int) -> Tensor:
    """Reads rows after the prefix into free slots, as few trees.

    Args:
        prefixes: The model, with the prefix of the slots entered.
        slot_cache: Receives the keys and values of the rows.
        rows: Token ids of each row, one or more.
        token_budget: Most tokens fed at a time; `_READ` times as many with block attention.

    Returns:
        `[rows, vocabulary]` float32 logits after the last token of each row.
    """
    blocks = prefixes.by_block and prefixes.device.type == "cpu"
    at_once = _READ * token_budget if blocks else token_budget
    lasts = torch.cat([_read_tree(prefixes, slot_cache, trie(group), at_once) for group in _groups(rows, at_once)])
    if prefixes.head is not None:
        with prefixes.products:
            lasts = prefixes.head.forward(lasts)  # not called: its hooks have seen these rows in `feed`
    return lasts.float()


def _groups(rows: Sequence[Ids], most: int) -> Iterator[list[Ids]]:
    """Groups rows that follow each other, up to `most` tokens; a row equal to the one before it costs nothing."""
    group: list[Ids] = []
    tokens = 0
    for row in rows:
        count = 0 if group and group[-1] == row else len(row)
        if group and tokens + count > most:
            yield group
            group, tokens, count = [], 0, len(row)
        group.append(row)
        tokens += count
    yield group


def _read_tree(prefixes: Prefixes, slot_cache: SlotCache, tree: Trie, at_once: int) -> Tensor:
    """Reads the rows of a tree into free slots; returns the hidden state after the last token of each, or its logits."""
    lasts = torch.tensor([path[-1] for path in tree.paths])
    places, which = lasts.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    cache = prefixes.cache()
    fed = torch.cat([piece for _, piece in feed_tree(prefixes, tree, cache, places, at_once, hidden=True)])
    past = prefixes.past(cache)
    if not hasattr(slot_cache, "keys"):
        slot_cache.lay_out(past)
    slot_cache.add(past, [torch.tensor(path, dtype=torch.long) + prefixes.length for path in tree.paths])
    return fed[which.to(prefixes.device)]


def step(prefixes: Prefixes, slot_cache: SlotCache, ids: Sequence[int]) -> Tensor:
    """Feeds each row one more token.

    Args:
        prefixes: The model, with the prefix of the slots entered.
        slot_cache: The rows.
        ids: The token of each row.

    Returns:
        `[rows, vocabulary]` float32 logits after it.
    """
    slot_cache.prepare(slot_cache.rows, max(slot_cache.filled) + 1)
    with prefixes.products, use_attention(prefixes.config, NAME, slot_cache):
        output = prefixes.model(
            input_ids=torch.tensor(ids, device=prefixes.device)[:, None],
            position_ids=slot_cache.at[:, None] + prefixes.length,
            attention_mask=prefixes.unmasked(),
            use_cache=False,
        )
    slot_cache.advance()
    logits: Tensor = output.logits[:, -1].float()
    return logits
