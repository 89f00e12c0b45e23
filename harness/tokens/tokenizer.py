"""A model's tokenizer, loaded without the model's weights, and how many tokens the model takes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data.gguf import pretrained
from harness.errors import UserError, brief

_CONTEXT_KEYS = ("n_positions", "max_position_embeddings", "n_ctx")
_NO_LIMIT = 1e29
"""A tokenizer that knows no limit has a `model_max_length` of 1e30."""
_DEFAULT_LIMIT = 2048
"""Tokens where neither model nor tokenizer names a limit: lm-evaluation-harness's number."""


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Loads the tokenizer of a model: a folder, or a GGUF file.

    Raises:
        UserError: The tokenizer cannot be read, or has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {**pretrained(folder), "trust_remote_code": trust_remote_code}
    try:
        with tempfile.TemporaryDirectory() as alone:
            if "gguf_file" in options:  # transformers would mix it with tokenizer files of the same folder
                (Path(alone) / folder.name).symlink_to(folder.absolute())
                options["pretrained_model_name_or_path"] = alone
            tokenizer = AutoTokenizer.from_pretrained(**options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the tokenizer in `{folder}` cannot be read: {first}",
            hint="save it again with `tokenizer.save_pretrained`",
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer in `{folder}` has no end-of-sequence token", hint="set `eos_token` and save it")
    return tokenizer


def load_header(file: Path) -> dict[str, Any]:
    """The configuration of the model in a GGUF file.

    Raises:
        UserError: The file cannot be read.
    """
    from transformers import AutoConfig

    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(**pretrained(file)).to_dict()
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"`{file}` cannot be read: {brief(error)}", hint="download it again") from error
    return found


def context_tokens(config: Any) -> int | None:
    """Tokens of the context that a text model's configuration declares; None where it declares none.

    Args:
        config: The object of transformers, which also knows other names of the keys, or `config.json` as a mapping.

    Example:
        >>> context_tokens({"n_positions": 1024})
        1024
    """
    for key in _CONTEXT_KEYS:
        declared = config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
        if declared:
            return int(declared)
    return None


def input_limit(config: Any, tokenizer: Any) -> int:
    """Longest input of a model in tokens, found as lm-evaluation-harness finds it.

    Args:
        config: As for `context_tokens`.
        tokenizer: The model's; its limit counts where the configuration declares none.
    """
    named = tokenizer.model_max_length
    return context_tokens(config) or (int(named) if named < _NO_LIMIT else _DEFAULT_LIMIT)
