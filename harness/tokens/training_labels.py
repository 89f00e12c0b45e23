"""Turns training examples into token ids and labels, with the same encoding as for scoring.

A prompt and its answer are tokenised together, and the white space between them belongs to the answer, as in
`harness.tokens.encode`: a model learns exactly the tokens that are scored. The turn of a chat template follows the ids of its
prompt alone (`harness.tokens.turns`): a model learns exactly the tokens that it should generate.

Example:
    >>> tokenise([Example("1 + 1 =", " 2")], tokenizer, max_length=64).rows  # doctest: +SKIP
    [{'input_ids': [16, 488, 220, 16, 284, 220, 17, 2], 'labels': [-100, -100, -100, -100, -100, 220, 17, 2], 'length': 8}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.jobs import Example
from harness.tokens.encode import Encoder
from harness.tokens.tokenizer import load_tokenizer
from harness.tokens.turns import turn_ids

IGNORED = -100
"""Label of a token that is left out of the loss."""


@dataclass(frozen=True)
class Tokenised:
    """Rows in tokens, and counts of what was lost."""

    rows: list[dict[str, Any]]
    """`input_ids`, `labels` and `length` of each row."""
    cut: int = 0
    """Number of rows cut on the right."""
    dropped: int = 0
    """Number of rows left out, because nothing to learn remained."""
    lost_tokens: int = 0
    """Tokens that were cut off or belong to rows left out."""


def tokenise(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Tokenised:
    """Encodes examples; only the completion and its end have labels.

    Args:
        examples: Prompts and completions.
        tokenizer: The model's.
        max_length: Most tokens of a row: longer rows are cut on the right, and left out if no label remains.

    Raises:
        UserError: No row remains.
    """
    rows: list[dict[str, Any]] = []
    cut = dropped = lost = 0
    for prompt, answer in answer_ids(examples, tokenizer):
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
            hint="raise `--max-length`, or shorten the prompts; `harness train … --preview 3` prints the first rows",
        )
    return Tokenised(rows, cut, dropped, lost)


def answer_ids(examples: Sequence[Example], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Ids of prompts, and of completions with what ends them; an empty prompt becomes the prefix token.

    Args:
        examples: The examples; plain texts and turns of a chat template are each tokenised in one batch.
        tokenizer: The model's.

    Raises:
        UserError: A prompt and the beginning of its answer are one token.
    """
    turns = {number for number, example in enumerate(examples) if example.turn_end is not None}
    plain = [(example.prompt, example.completion) for n, example in enumerate(examples) if n not in turns]
    said = [(each.prompt, each.completion + each.turn_end) for each in examples if each.turn_end is not None]
    texts, answers = iter(Encoder(tokenizer, 1).pairs(plain)), iter(turn_ids(said, tokenizer))
    found = []
    for number, example in enumerate(examples):
        prompt, ids = next(answers if number in turns else texts)
        found.append((list(prompt), list(ids) if example.turn_end else _ended(ids, example, tokenizer)))
    return found


def row_lengths(
    folder: Path, examples: Sequence[Example], *, answered: bool, trust_remote_code: bool = False
) -> list[int]:
    """Counts the tokens of rows before anything is cut: of the prompt and the learned answer, for a pair the longer one.

    Args:
        folder: A model's folder, with its tokenizer.
        examples: The rows.
        answered: Whether the answers count: false for stages that generate them.
        trust_remote_code: Whether the tokenizer's own code may run.

    Raises:
        UserError: The tokenizer cannot be read.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    lengths = [len(prompt) + len(answer) * answered for prompt, answer in answer_ids(examples, tokenizer)]
    pairs = [row for row, example in enumerate(examples) if answered and example.rejected is not None]
    worse = [replace(examples[row], completion=str(examples[row].rejected)) for row in pairs]
    for row, (prompt, answer) in zip(pairs, answer_ids(worse, tokenizer), strict=True):
        lengths[row] = max(lengths[row], len(prompt) + len(answer))
    return lengths


def _ended(ids: Sequence[int], example: Example, tokenizer: Any) -> list[int]:
    """Ends the ids of an answer with exactly one end-of-sequence token, or with none."""
    found = list(ids)
    while found and found[-1] == tokenizer.eos_token_id:
        found.pop()  # from the text itself
    if example.append_eos or example.completion.endswith(tokenizer.eos_token):
        found.append(tokenizer.eos_token_id)
    return found


def labelled(prompt: Sequence[int], answer: Sequence[int], max_length: int) -> dict[str, Any] | None:
    """Makes one row, cut on the right; None if no token of the answer remains to learn from."""
    ids = [*prompt, *answer][:max_length]
    labels = [*[IGNORED] * len(prompt), *answer][:max_length]
    if len(ids) <= max(1, len(prompt)):  # a row's first token is not predicted, so it cannot be learned
        return None
    return {"input_ids": ids, "labels": labels, "length": len(ids)}


def blocks(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Tokenised:
    """Encodes plain text for continued pretraining: documents are joined and cut into blocks of `max_length` tokens.

    Every token is learned once: a block starts with the last token of the block before, as context. Documents in a block
    see each other, as is usual; each ends with the end-of-sequence token.

    Args:
        examples: One document each: prompt and completion are one text.
        tokenizer: The model's.
        max_length: Tokens of a block; the last block may be shorter.

    Raises:
        UserError: There is no text, or a block has no room for a token and its context.
    """
    if max_length < 2:
        raise UserError(f"blocks of {max_length} tokens hold nothing to learn", hint="set `--max-length` to 2 or more")
    prefix, eos = Encoder(tokenizer, 1).prefix_id, tokenizer.eos_token_id
    texts = [Example("", each.prompt + each.completion + (each.turn_end or "")) for each in examples]
    stream: list[int] = []
    for _, ids in answer_ids(texts, tokenizer):
        if ids != [eos]:  # where a tokenizer has no BOS token, the end of the text before takes its place
            stream += [prefix] * (prefix != eos or not stream)
            stream += ids
    cuts = [stream[start : start + max_length] for start in range(0, len(stream) - 1, max_length - 1)]
    if not cuts:
        raise UserError(
            f"the {len(examples)} training rows hold no text", hint="check the columns of the training data"
        )
    ignored = {prefix} - {eos}
    return Tokenised(
        [
            {"input_ids": ids, "labels": [IGNORED if id in ignored else id for id in ids], "length": len(ids)}
            for ids in cuts
        ]
    )
