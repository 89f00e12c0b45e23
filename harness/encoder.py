"""A model's encoding without its weights: to show prompts in tokens, and to count them before anything is run."""

from __future__ import annotations

from typing import Any

from harness.engine.encode import Encoder
from harness.errors import UserError
from harness.snapshot import Snapshot

_CONTEXT_KEYS = ("n_positions", "max_position_embeddings", "n_ctx")
_UNLIMITED = 1 << 30


def load_encoder(snapshot: Snapshot, *, trust_remote_code: bool = False) -> Encoder:
    """The encoding of a model, as it is scored with.

    Args:
        snapshot: The model.
        trust_remote_code: Whether the tokenizer's own code may run.

    Raises:
        UserError: The tokenizer cannot be read, or has no end-of-sequence token.
    """
    return Encoder(_tokenizer(snapshot, trust_remote_code), _context(snapshot))


def _context(snapshot: Snapshot) -> int:
    """Tokens the model takes, as its configuration says; without limit where it does not."""
    config = snapshot.config
    for place in (config, config.get("text_config") or {}):
        for key in _CONTEXT_KEYS:
            if place.get(key):
                return int(place[key])
    return _UNLIMITED


def _tokenizer(snapshot: Snapshot, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(snapshot.folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the tokenizer of `{snapshot.name}` cannot be read: {str(error).splitlines()[0]}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of `{snapshot.name}` has no end-of-sequence token", hint="set `eos_token`")
    return tokenizer
