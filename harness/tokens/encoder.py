"""A model's encoding without its weights: to show prompts in tokens, and to count them before anything is run."""

from __future__ import annotations

from harness.data.model_files import Snapshot
from harness.tokens.encode import Encoder
from harness.tokens.tokenizer import load_tokenizer

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
    return Encoder(load_tokenizer(snapshot.folder, trust_remote_code=trust_remote_code), _context(snapshot))


def _context(snapshot: Snapshot) -> int:
    """Tokens the model takes, as its configuration says; without limit where it does not."""
    config = snapshot.config
    for place in (config, config.get("text_config") or {}):
        for key in _CONTEXT_KEYS:
            if place.get(key):
                return int(place[key])
    return _UNLIMITED
