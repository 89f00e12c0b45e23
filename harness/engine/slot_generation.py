"""Generates text in slots: rows run side by side, and a finished row leaves its slot to the next request.

Prompts are read as packed trees, so what they share is read once; every step then feeds all rows (`harness.engine.slot_cache`),
on a GPU as a recorded graph (`harness.engine.step_graphs`). Sampling is seeded by request, so neither the other rows nor the order
change a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from harness.engine.generation_rules import GenerationRules
from harness.engine.padded_generation import Completion, eos_ids, finished_raw, next_tokens, start_completions
from harness.engine.padded_scoring import head_numerics
from harness.engine.prefix_cache import Prefixes
from harness.engine.slot_cache import SlotCache, read, step
from harness.engine.step_graphs import StepGraphs, cuda_recorder
from harness.jobs import Raw
from harness.tokens.packs import Pack
from harness.tokens.trie import shared

SLOTS = {"cpu": 64, "cuda": 256}
"""Number of slots by type of device."""
_REFILL = 0.75
"""Share of used slots below which new prompts are read: reading several at once is cheaper than one by one."""


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
    record = cuda_recorder(prefixes.device)
    next_logits = StepGraphs(prefixes, slot_cache, record).step if record else partial(step, prefixes, slot_cache)
    greedy = not any(completion.generator or completion.rules for completion in waiting)
    head = prefixes.greedy_head if greedy else None
    with head_numerics(prefixes.model, "fp32"), nullcontext() if head is None else head.used():
        while waiting or active:
            if waiting and slot_cache.rows <= slot_cache.slots * _REFILL:
                _admit(prefixes, slot_cache, waiting, active, cut, token_budget)
            else:
                logits = next_logits([completion.ids[-1] for completion in active])
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
