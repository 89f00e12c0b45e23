"""What learned prompts start from: common words, a text, or chance.

A prompt that starts as words is something the model can read from the first step on; one drawn from a normal distribution of
deviation 1, as libraries have it, is dozens of times longer than any word's embedding, and most of its training goes into
coming back. Numbers below are therefore on the scale of the model's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from harness.tokens.tokenizer import load_tokenizer

_COMMON = 5000
"""Words are drawn from so many of the first ids: byte-pair vocabularies hold the commonest first (as arXiv 2104.08691 does)."""


@torch.no_grad()
def starting_embeddings(model: Any, tokens: int, *, init: str = "vocab", text: str = "") -> Tensor:
    """Embeddings for a learned prompt to start from, drawn with torch's seed.

    Args:
        model: A causal language model; for `text`, loaded from a folder that holds its tokenizer too.
        tokens: How many.
        init: `vocab`: those of common words; `text`: those of `text`, repeated to fill; `random`: normal, with the mean and
            deviation of common words' (arXiv 2104.08691).
        text: What the prompt starts as.

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
    """Keys and values of every layer for a learned prefix to start from: what the model keeps of words that stand first.

    Args:
        model: A causal language model; for `text`, loaded from a folder that holds its tokenizer too.
        tokens: How many.
        init: As for `starting_embeddings`; `random`: normal, with the mean and deviation of each layer's own.
        text: What the prefix starts as.

    Returns:
        `[tokens, layers, 2, heads, dimension]` float32, keys before values.

    Raises:
        UserError: As for `starting_embeddings`; or the model keeps something else than keys and values of one size.
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
            f"`{model.config.model_type}` does not keep keys and values of one size for {tokens} tokens in every layer",
            hint="a prefix is made of those: learn embeddings instead, with `prompt` or `ptuning`",
        )
    _, heads, _, dimension = kept[0].shape
    start = torch.cat(kept).float().view(-1, 2, heads, tokens, dimension).permute(3, 0, 1, 2, 4)
    return torch.stack([_as_random(layer) for layer in start.unbind(1)], 1) if init == "random" else start


def _as_random(values: Tensor) -> Tensor:
    return torch.randn_like(values) * values.std() + values.mean()


def _ids(model: Any, tokens: int, init: str, text: str) -> Tensor:
    """`[tokens]` ids of the words to start from."""
    config, embedding = model.config.get_text_config(), model.get_input_embeddings()
    if tokens < 1:
        raise UserError(f"a prompt of {tokens} tokens cannot be learned", hint="`tokens` is 1 or more")
    context = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if context and tokens >= context:
        raise UserError(
            f"a learned prompt of {tokens} tokens leaves no room in the model's context of {context}",
            hint=f"`tokens` below {context}; 20 is usual",
        )
    if (init == "text") != bool(text.strip()):
        raise UserError(
            "`text` is what a prompt starts as with `init=text`, and only then",
            hint="give both: `init=text,text=Answer the question.`",
        )
    if init == "text":
        return _written(model, tokens, text).to(embedding.weight.device)
    count = min(_COMMON, embedding.num_embeddings)
    return torch.randint(0, count, (tokens,)).to(embedding.weight.device)


def _written(model: Any, tokens: int, text: str) -> Tensor:
    if not model.name_or_path:
        raise UserError("`init=text` needs the tokenizer of a model that was loaded from a folder")
    ids = load_tokenizer(model.name_or_path)(text, add_special_tokens=False)["input_ids"]
    if len(ids) > tokens:
        raise UserError(
            f"the text that the prompt starts as has {len(ids)} tokens, the prompt {tokens}",
            hint=f"`tokens={len(ids)}`, or a shorter text",
        )
    return torch.tensor((ids * (tokens // len(ids) + 1))[:tokens])
