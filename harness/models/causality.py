"""Checks that a model is causal: no logits may depend on a later token.

The earlier logits of causal models are exactly equal when only the last token differs (21 architectures, in float32 and
bfloat16); those of encoders differ by 2.8e-4 of their scale or more, even with random weights.
"""

from __future__ import annotations

from typing import Any

import torch

from harness.errors import UserError
from harness.tokens.tokenizer import context_tokens

_TOKENS = 16
_TOLERANCE = 1e-5
"""Largest difference relative to the largest logit, so that kernels which round rows differently pass."""


@torch.inference_mode()
def refuse_if_not_causal(model: Any) -> None:
    """Runs two rows that differ in their last token, and compares the logits before it.

    Args:
        model: A base, in evaluation mode.

    Raises:
        UserError: Earlier logits depend on a later token.
    """
    config = model.config.get_text_config()
    length = min(_TOKENS, context_tokens(config) or _TOKENS)
    row = torch.randint(0, config.vocab_size, (length,), generator=torch.Generator().manual_seed(0))
    ids = row.repeat(2, 1)
    ids[1, -1] = (ids[1, -1] + 1) % config.vocab_size
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].float()
    distance, scale = (logits[0] - logits[1]).abs().max(), logits.abs().max()
    if distance > _TOLERANCE * scale:  # False for NaN, which scoring reports
        raise UserError(
            f"`{type(model).__name__}` is no causal language model: the logits of a token depend on the tokens after it",
            hint="give a causal language model; an encoder needs `is_decoder: true` in its config.json, and to be trained so",
        )
