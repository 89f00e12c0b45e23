"""Training examples to ids and labels, encoded as scoring encodes them.

A prompt and its answer are tokenised jointly and the white space between them belongs to the answer, as in
`harness.tokens.encode`: what is learned is token for token what is scored.

Example:
    >>> tokenise([Example("1 + 1 =", " 2")], tokenizer, max_length=64).rows  # doctest: +SKIP
    [{'input_ids': [16, 488, 220, 16, 284, 220, 17, 2], 'labels': [-100, -100, -100, -100, -100, 220, 17, 2], 'length': 8}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.jobs import Example
from harness.tokens.encode import Encoder

IGNORED = -100
"""Label of a token that is not learned."""


@dataclass(frozen=True)
class Tokenised:
    """Rows in tokens, and what of the data is not in them."""

    rows: list[dict[str, Any]]
    """`input_ids`, `labels` and `length` of each."""
    cut: int = 0
    """Rows cut on the right."""
    dropped: int = 0
    """Rows left out: nothing to learn from was left of them."""
    lost_tokens: int = 0
    """Tokens cut off, and those of the rows left out."""


def tokenise(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Tokenised:
    """Examples as ids and labels; labels are on the completion alone, its end included.

    Args:
        examples: What is learned from.
        tokenizer: The model's.
        max_length: Tokens of a row at most: longer ones are cut on the right, and left out where no label remains.

    Raises:
        UserError: No row is left.
    """
    pairs = answer_ids([(example.prompt, example.completion) for example in examples], tokenizer)
    rows: list[dict[str, Any]] = []
    cut = dropped = lost = 0
    for example, (prompt, answer) in zip(examples, pairs, strict=True):
        answer = ended(answer, example.completion, tokenizer, append_eos=example.append_eos)
        row = labelled(prompt, answer, max_length)
        length = len(prompt) + len(answer)
        if row is None:
            dropped += 1
            lost += length
            continue
        cut += length > max_length
        lost += max(0, length - max_length)
        rows.append(row)
    if not rows:
        raise UserError(
            f"none of the {len(examples)} training rows has an answer within {max_length} tokens",
            hint="raise `--max-length`, or shorten the prompts; `harness train … --preview 3` shows the rows",
        )
    return Tokenised(rows, cut, dropped, lost)


def answer_ids(pairs: Sequence[tuple[str, str]], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Ids of prompts and of what answers them, tokenised in one batch; without a prompt, the prefix token stands for it."""
    encoder = Encoder(tokenizer, 1)
    return [(list(prompt), list(answer)) for prompt, answer in encoder.pairs(pairs)]


def ended(ids: Sequence[int], text: str, tokenizer: Any, *, append_eos: bool) -> list[int]:
    """The ids of an answer with one end-of-sequence token behind them, whether text, tokenizer or nobody wrote one.

    Args:
        ids: Of the answer.
        text: The answer.
        tokenizer: The model's.
        append_eos: Whether the end is to be learned where the text does not bring it.
    """
    found = list(ids)
    while found and found[-1] == tokenizer.eos_token_id:
        found.pop()  # the text's own, or one that the tokenizer adds
    if append_eos or text.endswith(tokenizer.eos_token):
        found.append(tokenizer.eos_token_id)
    return found


def labelled(prompt: Sequence[int], answer: Sequence[int], max_length: int) -> dict[str, Any] | None:
    """One row, cut on the right; None where no answer is left to learn from."""
    ids = [*prompt, *answer][:max_length]
    labels = [*[IGNORED] * len(prompt), *answer][:max_length]
    if len(ids) <= max(1, len(prompt)):  # the first token has nothing before it that it could be learned from
        return None
    return {"input_ids": ids, "labels": labels, "length": len(ids)}


def blocks(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Tokenised:
    """Plain text for post-pretraining: documents one after another, each ended, in blocks of `max_length` tokens.

    Every token is learned once: a block begins with the last token of the one before, which is its context. Documents in a
    block see each other, as is customary; the end-of-sequence token tells them apart.

    Args:
        examples: A document each: prompt and completion are one text.
        tokenizer: The model's.
        max_length: Tokens of a block; the last one may be shorter.

    Raises:
        UserError: There is no text, or a block has no room for a token and its context.
    """
    if max_length < 2:
        raise UserError("blocks of one token hold nothing to learn", hint="raise `--max-length`")
    prefix, eos = Encoder(tokenizer, 1).prefix_id, tokenizer.eos_token_id
    texts = [example.prompt + example.completion for example in examples]
    stream: list[int] = []
    for text, (_, ids) in zip(texts, answer_ids([("", text) for text in texts], tokenizer), strict=True):
        if ids:  # where no token begins a text, the end of the one before does
            stream += [prefix] * (prefix != eos or not stream)
            stream += ended(ids, text, tokenizer, append_eos=True)
    cuts = [stream[start : start + max_length] for start in range(0, len(stream) - 1, max_length - 1)]
    if not cuts:
        raise UserError(f"the {len(examples)} training rows hold no text")
    ignored = {prefix} - {eos}
    return Tokenised(
        [
            {"input_ids": ids, "labels": [IGNORED if id in ignored else id for id in ids], "length": len(ids)}
            for ids in cuts
        ]
    )
