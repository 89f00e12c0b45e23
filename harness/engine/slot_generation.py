"""Generates text in slots: rows run side by side, and a finished row leaves its slot to the next request.

Prompts are read as packed trees, so what they share is read once. During generation, the keys and values of the shared
prefix stay at batch size 1, and every step multiplies all rows with them at once; each row's own keys and values are in
its slot of a preallocated cache. The two parts of the softmax are joined in float32 (Juravsky et al., "Hydragen", 2024,
arXiv 2402.05099). Sampling is seeded by request, so neither the other rows nor the order change a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.engine.attention import attention_state, refuse_unknown, use_attention
from harness.engine.generation_rules import GenerationRules
from harness.engine.padded_generation import Completion, eos_ids, finished_raw, next_tokens, start_completions
from harness.engine.padded_scoring import head_numerics
from harness.engine.prefix_cache import KeysAndValues, Prefixes
from harness.engine.tree_scoring import feed_tree
from harness.jobs import Raw
from harness.tokens.packs import Pack
from harness.tokens.trie import Ids, Trie, shared, trie

SLOTS = {"cpu": 64, "cuda": 256}
"""Number of slots by type of device."""
_NAME = "harness_slots"
_REFILL = 0.75
"""Share of used slots below which new prompts are read: reading several at once is cheaper than one by one."""
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
    rows: int = 0
    """Number of slots in use; they are the first ones."""

    def lay_out(self, example: KeysAndValues) -> None:
        """Allocates the cache in the shape and precision of an example of the model's keys and values."""

        def room(tensor: Tensor) -> Tensor:
            return tensor.new_zeros(self.slots, tensor.shape[1], self.length, tensor.shape[3])

        self.keys = [room(keys) for keys, _ in example]
        self.values = [room(values) for _, values in example]
        self.lengths = torch.zeros(self.slots, dtype=torch.long, device=example[0][0].device)

    def add(self, past: KeysAndValues, places: Tensor) -> None:
        """Adds a row with the keys and values at some places of `past`."""
        for layer, (keys, values) in enumerate(past):
            self.keys[layer][self.rows, :, : len(places)] = keys[0, :, places]
            self.values[layer][self.rows, :, : len(places)] = values[0, :, places]
        self.lengths[self.rows] = len(places)
        self.rows += 1

    def drop(self, slot: int) -> None:
        """Frees a slot; the last row moves into it."""
        self.rows -= 1
        if slot != self.rows:
            length = int(self.lengths[self.rows])
            for tensors in (self.keys, self.values):
                for tensor in tensors:
                    tensor[slot, :, :length] = tensor[self.rows, :, :length]
            self.lengths[slot] = length

    def step(self) -> None:
        """Prepares a step in which every row gets one token: where the layers store it and what they see."""
        lengths = self.lengths[: self.rows]
        self.index = torch.arange(self.rows, device=lengths.device)
        self.at = lengths.clone()
        self.width = int(lengths.max()) + 1
        places = torch.arange(self.width, device=lengths.device)
        self.unseen = (places[None] > lengths[:, None])[:, None, None]
        self.lengths[: self.rows] += 1


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


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)


@torch.inference_mode()
def generate_slots(
    prefixes: Prefixes,
    tokenizer: Any,
    pack: Pack,
    *,
    seed: int,
    token_budget: int,
    slots: int,
) -> list[Raw]:
    """Generates the texts of a pack's requests, in the order of the pack, with the head in float32.

    Args:
        prefixes: The model and its cached prefixes.
        tokenizer: Its tokenizer.
        pack: Requests of mode `generate`.
        seed: For sampling.
        token_budget: Most tokens of prompts read at a time.
        slots: Most rows that are generated at the same time.
    """
    eos, rules = eos_ids(prefixes.outer, tokenizer), GenerationRules(prefixes.outer)
    by_item = [start_completions(item, tokenizer, eos, seed, rules) for item in pack.items]
    waiting = [completion for group in by_item for completion in group][::-1]
    path = _path([item.prompt for item in pack.items], pack.path)
    prefixes.enter(path)
    cut = sum(map(len, path))
    length = max(len(item.prompt) - cut + item.request.limit for item in pack.items)
    slot_cache = SlotCache(prefixes.contents, min(slots, len(waiting)), length)
    active: list[Completion] = []
    greedy = not any(completion.generator or completion.rules for completion in waiting)
    head = prefixes.greedy_head if greedy else None
    with head_numerics(prefixes.model, "fp32"), nullcontext() if head is None else head.used():
        while waiting or active:
            if waiting and slot_cache.rows <= slot_cache.slots * _REFILL:
                _admit(prefixes, slot_cache, waiting, active, cut, token_budget)
            else:
                logits = step(prefixes, slot_cache, [completion.ids[-1] for completion in active])
                for completion, token in zip(active, next_tokens(active, logits), strict=True):
                    completion.add(token)
            for slot in reversed([slot for slot, completion in enumerate(active) if completion.finished]):
                slot_cache.drop(slot)
                active[slot] = active[-1]
                active.pop()
    return [finished_raw(group) for group in by_item]


def _path(prompts: Sequence[tuple[int, ...]], path: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The pack's path, extended by what else all its prompts share; at least one token is left to compute logits from."""
    cut = sum(map(len, path))
    more = min(shared(min(prompts), max(prompts)), min(map(len, prompts)) - 1) - cut
    return (*path, prompts[0][cut : cut + more]) if more > 0 and len(prompts) > 1 else tuple(path)


def _admit(
    prefixes: Prefixes,
    slot_cache: SlotCache,
    waiting: list[Completion],
    active: list[Completion],
    cut: int,
    token_budget: int,
) -> None:
    """Reads prompts into all free slots, and generates the first token of each."""
    free = min(slot_cache.slots - slot_cache.rows, len(waiting))
    taken = [waiting.pop() for _ in range(free)]
    logits = read(prefixes, slot_cache, [completion.item.prompt[cut:] for completion in taken], token_budget)
    for completion, token in zip(taken, next_tokens(taken, logits), strict=True):
        completion.add(token)
    active += taken


def read(prefixes: Prefixes, slot_cache: SlotCache, rows: Sequence[Ids], token_budget: int) -> Tensor:
    """Reads rows after the prefix into free slots, as few trees.

    Args:
        prefixes: The model, with the prefix of the slots entered.
        slot_cache: Receives the keys and values of the rows.
        rows: Token ids of each row, one or more.
        token_budget: Most tokens fed at a time; with block attention, `_READ` times as many.

    Returns:
        `[rows, vocabulary]` float32 logits after the last token of each row.
    """
    at_once = _READ * token_budget if prefixes.by_block else token_budget
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
    for path in tree.paths:
        slot_cache.add(past, torch.tensor(path, device=past[0][0].device) + prefixes.length)
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
    positions = (slot_cache.lengths[: slot_cache.rows, None] + prefixes.length).to(prefixes.device)
    slot_cache.step()
    with prefixes.products, use_attention(prefixes.config, _NAME, slot_cache):
        output = prefixes.model(
            input_ids=torch.tensor(ids, device=prefixes.device)[:, None],
            position_ids=positions,
            attention_mask=prefixes.unmasked(),
            use_cache=False,
        )
    logits: Tensor = output.logits[:, -1].float()
    return logits
