r"""Token ids of a chat template's prompt, and of the answer that is learned after it.

A model generates after the ids of the prompt alone. Mostly, the ids of prompt and answer together begin with them. Where
white space between the two is one token (`<think>\n` and `\n</think>`), the answer's part of that token is tokenised apart,
after a text that keeps its beginning separate. The template writes all special tokens: the tokenizer adds none.

Example:
    >>> turn_ids([("<|im_start|>assistant\n", "4<|im_end|>")], tokenizer)  # doctest: +SKIP
    [((1, 520, 9531, 198), (36, 2))]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import UserError

_BEFORE = ("", "\n", "]", "a")
"""Texts after which the answer's part of a token is tokenised, until its ids together give the right text."""


def turn_ids(pairs: Sequence[tuple[str, str]], tokenizer: Any) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids of prompts and of the texts after them.

    Args:
        pairs: Prompts and learned texts.
        tokenizer: The model's.

    Raises:
        UserError: A prompt and the beginning of its text are one token.
    """
    if not pairs:
        return []
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    alone = dict(zip(prompts, _ids(tokenizer, prompts), strict=True))
    together = _ids(tokenizer, [prompt + text for prompt, text in pairs])
    found = []
    for (prompt, text), whole in zip(pairs, together, strict=True):
        head = alone[prompt]
        tail = whole[len(head) :] if whole[: len(head)] == head else _spliced(tokenizer, prompt, text, head, whole)
        found.append((tuple(head), tuple(tail)))
    return found


def _spliced(tokenizer: Any, prompt: str, text: str, head: list[int], whole: list[int]) -> list[int]:
    """Ids of a text after those of its prompt, where a token of the joint ids holds the end of one and the start of the other."""
    first, cut = len(whole), len(text)
    if tokenizer.is_fast:
        offsets = tokenizer(prompt + text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        first = next((place for place, (start, _) in enumerate(offsets) if start >= len(prompt)), len(whole))
        cut = offsets[first][0] - len(prompt) if first < len(whole) else len(text)
    wanted = tokenizer.decode(whole)
    for before in _BEFORE:
        mark, piece = _ids(tokenizer, [before, before + text[:cut]])
        tail = piece[len(mark) :] + whole[first:]
        if piece[: len(mark)] == mark and tokenizer.decode(head + tail) == wanted:
            return tail
    raise UserError(
        f"the tokenizer makes one token of the end of a prompt {prompt[-20:]!r} and the start of its answer {text[:20]!r}",
        hint="leave the row out, or begin the answer differently",
    )


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    batch = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in batch["input_ids"]]
