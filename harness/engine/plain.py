"""The oracle: one whole-prompt forward for every continuation and every new token. Simple, slow, kept for ever.

No padding, no cache, no packs, no shared rows: what every part of the fast path is tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine.encode import Encoded
from harness.engine.generate import choose, eos_ids, finished_raw, writers
from harness.engine.score import head_numerics
from harness.jobs import Raw


@torch.inference_mode()
def score_plainly(model: Any, item: Encoded, *, numerics: str) -> Raw:
    """Log-likelihoods of one request."""
    choices = len(item.request.continuations)
    totals, greedy, tokens = [0.0] * choices, [True] * choices, 0
    for row in item.rows:
        for span in row.spans:
            with head_numerics(model, numerics):
                logits = forward(model, row.ids)
            if numerics == "fp32":
                logits = logits.float()
            logprobs = functional.log_softmax(logits, -1)
            for offset, target in enumerate(span.targets):
                totals[span.choice] += float(logprobs[span.start + offset, target])
                greedy[span.choice] &= int(logits[span.start + offset].argmax()) == target
            tokens += len(span.targets)
    return Raw(
        item.index,
        item.prompt_tokens,
        item.truncated,
        tokens,
        loglikelihoods=tuple(totals),
        is_greedy=tuple(greedy),
    )


@torch.inference_mode()
def generate_plainly(model: Any, tokenizer: Any, item: Encoded, *, seed: int, numerics: str) -> Raw:
    """The texts of one request, the whole prompt run anew for every token."""
    group = writers(item, tokenizer, eos_ids(model, tokenizer), seed)
    for writer in group:
        while not writer.finished:
            with head_numerics(model, numerics):
                logits = forward(model, [*item.prompt, *writer.ids])[-1].float()
            writer.take(choose([writer], logits[None])[0])
    return finished_raw(group)


def forward(model: Any, ids: Sequence[int]) -> Tensor:
    """`[ids, vocabulary]` logits; those of virtual tokens before the ids, which some methods return, are left out."""
    # a learned prefix comes in as a cache, which a forward without one refuses
    logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=True).logits[0]
    return logits[-len(ids) :]
