"""A model's tokenizer, read without its weights: by the children that run it, and to show and count prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.data.model_files import Snapshot
from harness.errors import UserError
from harness.tokens.encode import Encoder


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder.

    Raises:
        UserError: It cannot be read, or has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the tokenizer in `{folder}` cannot be read: {str(error).splitlines()[0]}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer in `{folder}` has no end-of-sequence token", hint="set `eos_token` and save it")
    return tokenizer


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
