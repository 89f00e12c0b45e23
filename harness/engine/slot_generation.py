"""Text by slots: rows that write side by side, each leaving when it is done and making room for the next.

Prompts are read as packed trees, so what they share is read once. While rows write, the beginning that all of them share
stays at batch 1: every step multiplies all rows with it at once, and each row's own past lies in a slab that was laid out
beforehand; the two parts of the softmax are joined in float32 (Juravsky et al., "Hydragen", 2024, arXiv 2402.05099). Draws
are seeded by request, so neither the neighbours nor the order change a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.engine.attention import attended, attending, refuse_unknown
from harness.engine.padded_generation import Writer, choose, eos_ids, finished_raw, writers
from harness.engine.padded_scoring import head_numerics
from harness.engine.prefix_cache import KeysAndValues, Prefixes
from harness.engine.tree_scoring import feed_tree
from harness.jobs import Raw
from harness.tokens.packs import Pack
from harness.tokens.trie import Ids, shared, trie

SLOTS = {"cpu": 64, "cuda": 256}
_NAME = "harness_slots"
_REFILL = 0.75
"""Share of the slots below which new rows are read: reading many at once is cheaper than one by one."""


@dataclass
class Slab:
    """Past of the rows that write.

    Args:
        beginning: Keys and values that all rows share.
        slots: Rows at most.
        length: Tokens that a row has after the beginning, at most.
    """

    beginning: KeysAndValues
    slots: int
    length: int
    keys: list[Tensor] = field(init=False)
    """`[slots, heads, length, dimension]` for each layer."""
    values: list[Tensor] = field(init=False)
    lengths: Tensor = field(init=False)
    """`[slots]`"""
    rows: int = 0
    """Slots in use: the first so many."""

    def lay_out(self, example: KeysAndValues) -> None:
        """Makes room, in the shape and precision of an example of the model's keys and values."""

        def room(tensor: Tensor) -> Tensor:
            return tensor.new_zeros(self.slots, tensor.shape[1], self.length, tensor.shape[3])

        self.keys = [room(keys) for keys, _ in example]
        self.values = [room(values) for _, values in example]
        self.lengths = torch.zeros(self.slots, dtype=torch.long, device=example[0][0].device)

    def add(self, past: KeysAndValues, places: Tensor) -> None:
        """One more row, with the keys and values at some places of `past`."""
        for layer, (keys, values) in enumerate(past):
            self.keys[layer][self.rows, :, : len(places)] = keys[0, :, places]
            self.values[layer][self.rows, :, : len(places)] = values[0, :, places]
        self.lengths[self.rows] = len(places)
        self.rows += 1

    def drop(self, slot: int) -> None:
        """Frees a slot; the last row moves there."""
        self.rows -= 1
        if slot != self.rows:
            length = int(self.lengths[self.rows])
            for tensors in (self.keys, self.values):
                for tensor in tensors:
                    tensor[slot, :, :length] = tensor[self.rows, :, :length]
            self.lengths[slot] = length

    def step(self) -> None:
        """Every row is about to get a token: fixes what the layers of this step read and where they write."""
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
    """One new token of each row over the shared beginning and the row's own past.

    Args:
        module: The attention module, which knows its layer.
        query: `[rows, heads, 1, dimension]`.
        key: `[rows, key heads, 1, dimension]`, of the new tokens; `value` likewise.
        attention_mask: That of `Prefixes.unmasked`.
        scaling: Of the scores.
        options: Others that the model hands over.
    """
    refuse_unknown(attention_mask, options, "softcap")
    slab: Slab = attended()
    layer = module.layer_idx
    rows, heads, _, dimension = query.shape
    groups = key.shape[1]
    each = heads // groups
    slab.keys[layer][slab.index, :, slab.at] = key[:, :, 0]
    slab.values[layer][slab.index, :, slab.at] = value[:, :, 0]
    keys, values = slab.keys[layer][:rows, :, : slab.width], slab.values[layer][:rows, :, : slab.width]
    query = query * (dimension**-0.5 if scaling is None else scaling)
    cap = options.get("softcap")

    def capped(scores: Tensor) -> Tensor:
        scores = scores.float()
        return scores if cap is None else torch.tanh(scores / cap) * cap

    own = capped(query.reshape(rows, groups, each, dimension) @ keys.transpose(-1, -2))
    own = own.masked_fill_(slab.unseen, float("-inf"))
    top = own.amax(-1, keepdim=True)  # [rows, groups, each, 1]
    if not slab.beginning:
        weights = (own - top).exp_()
        out = (weights.to(values.dtype) @ values).float() / weights.sum(-1, keepdim=True)
        return out.to(query.dtype).reshape(rows, 1, heads, values.shape[-1]), None
    first_keys, first_values = slab.beginning[layer]
    queries = query.reshape(rows, groups, each, dimension).transpose(0, 1).reshape(groups, rows * each, dimension)
    common = capped(
        queries @ first_keys[0].transpose(-1, -2)
    )  # [groups, rows * each, beginning]: one product for all rows
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
    """The texts of a pack's requests, in its order, head in float32.

    Args:
        prefixes: The model, and the beginnings it has run.
        tokenizer: Its tokenizer.
        pack: Requests of mode `generate`.
        seed: Of the draws.
        token_budget: Tokens of prompts read at a time.
        slots: Rows that write at once, at most.
    """
    eos = eos_ids(prefixes.outer, tokenizer)
    by_item = [writers(item, tokenizer, eos, seed) for item in pack.items]
    waiting = [writer for group in by_item for writer in group][::-1]
    path = _path([item.prompt for item in pack.items], pack.path)
    prefixes.enter(path)
    cut = sum(map(len, path))
    length = max(len(item.prompt) - cut + item.request.max_tokens for item in pack.items)
    slab = Slab(prefixes.contents, min(slots, len(waiting)), length)
    active: list[Writer] = []
    with head_numerics(prefixes.model, "fp32"):
        while waiting or active:
            if waiting and slab.rows <= slab.slots * _REFILL:
                _admit(prefixes, slab, waiting, active, cut, token_budget)
            else:
                logits = step(prefixes, slab, [writer.ids[-1] for writer in active])
                for writer, token in zip(active, choose(active, logits), strict=True):
                    writer.take(token)
            for slot in reversed([slot for slot, writer in enumerate(active) if writer.finished]):
                slab.drop(slot)
                active[slot] = active[-1]
                active.pop()
    return [finished_raw(group) for group in by_item]


def _path(prompts: Sequence[tuple[int, ...]], path: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The pack's path, and what else all its prompts begin with; a token is left to read the first logits from."""
    cut = sum(map(len, path))
    more = min(shared(min(prompts), max(prompts)), min(map(len, prompts)) - 1) - cut
    return (*path, prompts[0][cut : cut + more]) if more > 0 and len(prompts) > 1 else tuple(path)


def _admit(
    prefixes: Prefixes, slab: Slab, waiting: list[Writer], active: list[Writer], cut: int, token_budget: int
) -> None:
    """Reads prompts into free slots, and writes the first token of each."""
    taken: list[Writer] = []
    tokens = 0
    while waiting and slab.rows + len(taken) < slab.slots:
        again = bool(taken) and taken[-1].item is waiting[-1].item  # another text for the same prompt
        count = 0 if again else len(waiting[-1].item.prompt) - cut
        if taken and tokens + count > token_budget:
            break
        taken.append(waiting.pop())
        tokens += count
    logits = read(prefixes, slab, [writer.item.prompt[cut:] for writer in taken], token_budget)
    for writer, token in zip(taken, choose(taken, logits), strict=True):
        writer.take(token)
    active += taken


def read(prefixes: Prefixes, slab: Slab, rows: Sequence[Ids], token_budget: int) -> Tensor:
    """Reads rows behind the beginning into free slots, as one tree.

    Args:
        prefixes: The model, the slab's beginning entered.
        slab: Where their past goes.
        rows: Of one token or more each.
        token_budget: Tokens fed at a time.

    Returns:
        `[rows, vocabulary]` float32 logits after the last token of each row.
    """
    tree = trie(rows)
    lasts = torch.tensor([path[-1] for path in tree.paths])
    places, which = lasts.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    cache = prefixes.cache()
    logits = torch.cat([piece.float() for _, piece in feed_tree(prefixes, tree, cache, places, token_budget)])
    past = prefixes.past(cache)
    if not hasattr(slab, "keys"):
        slab.lay_out(past)
    for path in tree.paths:
        slab.add(past, torch.tensor(path, device=past[0][0].device) + prefixes.length)
    return logits[which.to(prefixes.device)]


def step(prefixes: Prefixes, slab: Slab, ids: Sequence[int]) -> Tensor:
    """Feeds each row one more token.

    Returns:
        `[rows, vocabulary]` float32 logits after it.
    """
    positions = (slab.lengths[: slab.rows, None] + prefixes.length).to(prefixes.device)
    slab.step()
    with attending(prefixes.config, _NAME, slab):
        output = prefixes.model(
            input_ids=torch.tensor(ids, device=prefixes.device)[:, None],
            position_ids=positions,
            attention_mask=prefixes.unmasked(),
            use_cache=False,
        )
    logits: Tensor = output.logits[:, -1].float()
    return logits
