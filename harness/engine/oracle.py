"""The oracle: one forward pass over the whole text for every continuation and every new token. Simple and slow.

Without padding, cache, packs and shared rows, it is the reference that every part of the fast path is tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine.generation_rules import GenerationRules
from harness.engine.padded_generation import Completion, eos_ids, finished_raw, next_tokens, start_completions
from harness.engine.padded_scoring import head_numerics, summed, takes_logits_to_keep
from harness.jobs import Raw
from harness.models.soft_prompts import learned_tokens
from harness.tokens.encode import Encoded


@torch.inference_mode()
def score_plainly(model: Any, item: Encoded, *, numerics: str) -> Raw:
    """Scores the continuations of one request."""
    spans = [span for row in item.rows for span in row.spans]
    totals, greedy = [0.0] * len(spans), [True] * len(spans)
    rows = [row for row in item.rows for _ in row.spans]
    for number, (row, span) in enumerate(zip(rows, spans, strict=True)):
        with head_numerics(model, numerics):
            logits = forward(model, row.ids)
        if numerics == "fp32":
            logits = logits.float()
        logprobs = functional.log_softmax(logits, -1)
        for offset, target in enumerate(span.targets):
            totals[number] += float(logprobs[span.start + offset, target])
            greedy[number] &= int(logits[span.start + offset].argmax()) == target
    return summed(item, spans, totals, greedy)


@torch.inference_mode()
def generate_plainly(model: Any, tokenizer: Any, item: Encoded, *, seed: int, numerics: str) -> Raw:
    """Generates the texts of one request; every token takes a forward pass over the whole text."""
    group = start_completions(item, tokenizer, eos_ids(model, tokenizer), seed, GenerationRules(model))
    for completion in group:
        complete_plainly(model, completion, numerics=numerics)
    return finished_raw(group)


@torch.inference_mode()
def complete_plainly(model: Any, completion: Completion, *, numerics: str) -> None:
    """Generates a completion to its end."""
    while not completion.finished:
        with head_numerics(model, numerics):
            logits = forward(model, [*completion.item.prompt, *completion.ids], 1)[-1].float()
        completion.add(next_tokens([completion], logits[None])[0])


def forward(model: Any, ids: Sequence[int], last: int | None = None) -> Tensor:
    """Runs one row.

    Args:
        model: A causal language model.
        ids: The row.
        last: Number of its last ids whose logits are needed; None: all.

    Returns:
        `[last, vocabulary]` logits, without those of learned tokens before the ids, which some methods return.
    """
    last = len(ids) if last is None else last
    options = {}
    by_index = takes_logits_to_keep(model) and not learned_tokens(model)  # which come before the ids and would count
    if last < len(ids) and by_index:  # and not by number: on a slice, the product in bfloat16 takes seconds
        options["logits_to_keep"] = torch.arange(len(ids) - last, len(ids), device=model.device)
    # a learned prefix is passed as a cache, which needs `use_cache`
    logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=True, **options).logits[0]
    return logits[-last:]
