"""Learned prompts: how many tokens they take, and what they are initialised from (common tokens, a text, random numbers).

A prompt that starts as embeddings of tokens is something the model can read from the first step. One drawn from a normal
distribution of deviation 1, as in PEFT, is dozens of times longer than any token's embedding, and most of its training
goes into becoming shorter. All starting values here therefore have the scale of the model's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from harness.tokens.tokenizer import context_tokens, load_tokenizer

_COMMON = 5000
"""Tokens are drawn from this many first ids, as in arXiv 2104.08691: byte-pair vocabularies list the commonest first."""


def learned_tokens(model: Any) -> int:
    """Number of virtual tokens that a method has learned and that precede every text; 0 for most methods."""
    config = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if config is not None and config.is_prompt_learning else 0


@torch.no_grad()
def starting_embeddings(model: Any, tokens: int, *, init: str = "vocab", text: str = "") -> Tensor:
    """Computes embeddings to initialise a learned prompt with, drawn with torch's seed.

    Args:
        model: A causal language model; for `text`, loaded from a folder that also holds its tokenizer.
        tokens: Length of the prompt.
        init: `vocab`: embeddings of common tokens; `text`: of `text`, repeated to fill the prompt; `random`: normal, with
            the mean and deviation of common tokens' embeddings (arXiv 2104.08691).
        text: The text to start from.

    Returns:
        `[tokens, hidden]` float32.

    Raises:
        UserError: `tokens` is below one or leaves the context no room, or `text` is missing or too long.

    Example:
        >>> starting_embeddings(model, 20, init="text", text="Answer the question.").shape  # doctest: +SKIP
        torch.Size([20, 256])
    """
    embeddings: Tensor = model.get_input_embeddings()(_ids(model, tokens, init, text)).float()
    return _as_random(embeddings) if init == "random" else embeddings


@torch.no_grad()
def starting_keys_and_values(model: Any, tokens: int, *, init: str = "random", text: str = "") -> Tensor:
    """Computes keys and values of every layer to initialise a learned prefix with: the model's own for some tokens.

    Args:
        model: A causal language model; for `text`, loaded from a folder that also holds its tokenizer.
        tokens: Length of the prefix.
        init: As for `starting_embeddings`; `random`: normal, with the mean and deviation of each layer's own.
        text: The text to start from.

    Returns:
        `[tokens, layers, 2, heads, dimension]` float32, keys before values.

    Raises:
        UserError: As for `starting_embeddings`; or the model's cache is not keys and values of one size.
    """
    ids = _ids(model, tokens, init, text)
    cache = getattr(model(input_ids=ids[None], use_cache=True), "past_key_values", None)
    pairs = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in getattr(cache, "layers", ())]
    kept = [each for pair in pairs for each in pair if isinstance(each, Tensor)]  # [1, heads, tokens, dimension] each
    if (
        not kept
        or len(kept) < 2 * len(pairs)
        or any(each.shape != (*kept[0].shape[:2], tokens, kept[0].shape[3]) for each in kept)
    ):
        raise UserError(
            f"`{model.config.model_type}` does not cache keys and values of one size for {tokens} tokens in every layer",
            hint="a prefix needs them: learn embeddings instead, with `prompt` or `ptuning`",
        )
    _, heads, _, dimension = kept[0].shape
    start = torch.cat(kept).float().view(-1, 2, heads, tokens, dimension).permute(3, 0, 1, 2, 4)
    return torch.stack([_as_random(layer) for layer in start.unbind(1)], 1) if init == "random" else start


def _as_random(values: Tensor) -> Tensor:
    return torch.randn_like(values) * values.std() + values.mean()


def _ids(model: Any, tokens: int, init: str, text: str) -> Tensor:
    """`[tokens]` ids to start from."""
    config, embedding = model.config.get_text_config(), model.get_input_embeddings()
    if tokens < 1:
        raise UserError(f"a prompt of {tokens} tokens cannot be learned", hint="set `tokens` to 1 or more")
    context = context_tokens(config)
    if context and tokens >= context:
        raise UserError(
            f"a learned prompt of {tokens} tokens leaves no room in the model's context of {context}",
            hint=f"set `tokens` below {context}; 20 is usual",
        )
    if (init == "text") != bool(text.strip()):
        raise UserError(
            "`init=text` and `text` need each other: `text` is what the prompt starts from",
            hint="give both: `init=text,text=Answer the question.`",
        )
    if init == "text":
        return _text_ids(model, tokens, text).to(embedding.weight.device)
    count = min(_COMMON, embedding.num_embeddings)
    return torch.randint(0, count, (tokens,)).to(embedding.weight.device)


def _text_ids(model: Any, tokens: int, text: str) -> Tensor:
    if not model.name_or_path:
        raise UserError("`init=text` needs a tokenizer, and this model was not loaded from a folder that holds one")
    ids = load_tokenizer(Path(model.name_or_path))(text, add_special_tokens=False)["input_ids"]
    if len(ids) > tokens:
        raise UserError(
            f"`text` has {len(ids)} tokens, and the prompt that starts from it only {tokens}",
            hint=f"set `tokens={len(ids)}`, or give a shorter text",
        )
    return torch.tensor((ids * (tokens // len(ids) + 1))[:tokens])
