"""A model's tokenizer, read without its weights: by the children that run it, and to show and count prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import UserError


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
