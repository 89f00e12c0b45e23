"""The oracle: one whole-prompt forward for every continuation and every new token. Simple, slow, kept for ever.

No padding, no cache, no packs, no shared rows: what every part of the fast path is tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine.padded_generation import Writer, choose, eos_ids, finished_raw, writers
from harness.engine.padded_scoring import head_numerics, summed
from harness.jobs import Raw
from harness.tokens.encode import Encoded


@torch.inference_mode()
def score_plainly(model: Any, item: Encoded, *, numerics: str) -> Raw:
    """Log-likelihoods of one request."""
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
    """The texts of one request, the whole prompt run anew for every token."""
    group = writers(item, tokenizer, eos_ids(model, tokenizer), seed)
    for writer in group:
        write_plainly(model, writer, numerics=numerics)
    return finished_raw(group)


@torch.inference_mode()
def write_plainly(model: Any, writer: Writer, *, numerics: str) -> None:
    """Has a writer finish its text."""
    while not writer.finished:
        with head_numerics(model, numerics):
            logits = forward(model, [*writer.item.prompt, *writer.ids])[-1].float()
        writer.take(choose([writer], logits[None])[0])


def forward(model: Any, ids: Sequence[int]) -> Tensor:
    """`[ids, vocabulary]` logits; those of virtual tokens before the ids, which some methods return, are left out."""
    # a learned prefix comes in as a cache, which a forward without one refuses
    logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=True).logits[0]
    return logits[-len(ids) :]
