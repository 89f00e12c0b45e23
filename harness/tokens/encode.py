"""Encodes requests as lm-evaluation-harness does, so that our scores can be compared with its published ones.

A context and its continuation are tokenised together; the ids after those of the context alone are the continuation's.
Spaces at the end of a context move to its continuation. What the tokenizer puts in front of a text is there once; what it
puts behind a text is left out, because a prompt goes on. Source: `_encode_pair`, `tok_encode` and
`get_rolling_token_windows` of lm-evaluation-harness 0.4, which keep an end-of-sequence token behind a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.data.gguf import is_gguf
from harness.data.model_files import Snapshot
from harness.errors import UserError
from harness.jobs import Request, TaskRequests
from harness.tokens.description import surroundings
from harness.tokens.tokenizer import input_limit, load_header, load_tokenizer


@dataclass(frozen=True)
class Span:
    """Tokens of a row that are scored."""

    choice: int
    """Index of their continuation in the request."""
    start: int
    """Position in the row whose logits predict the first of them."""
    targets: tuple[int, ...]


@dataclass(frozen=True)
class ScoreRow:
    """One input to the model and its spans to score. Continuations of one token share their context's row."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Encoded:
    """A request in token ids."""

    index: int
    request: Request
    rows: tuple[ScoreRow, ...]
    """Empty when text is generated."""
    prompt: tuple[int, ...]
    """The ids to generate from; empty when a request is scored."""
    prompt_tokens: int
    truncated: bool
    """Whether tokens of the prompt were cut on the left."""
    limited: bool = False
    """Whether the prompt leaves less room than thought and answer may take; the request then has what is left."""


class Encoder:
    """Encodes requests for one tokenizer and one context length.

    Args:
        tokenizer: The model's.
        max_length: Tokens that the model takes.
        numerics: With `lm-eval`, the prompts of a chat template also get what the tokenizer puts in front of a text, as
            lm-evaluation-harness does it. Otherwise, the template writes all special tokens, as in transformers.
    """

    def __init__(self, tokenizer: Any, max_length: int, *, numerics: str = "fp32") -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        bos = tokenizer.bos_token_id
        self.prefix_id: int = bos if bos is not None else tokenizer.eos_token_id
        self._front, _ = surroundings(tokenizer)
        self._always_front = numerics == "lm-eval"

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Ids of contexts and continuations, as they are scored and as training learns them.

        A continuation without a context follows the prefix token; a rendered chat may begin with that token already.
        """
        moved = [_shift_spaces(*pair) for pair in pairs]
        texts = self._tokenise([text for context, tail in moved if context for text in (context, context + tail)])
        alone = self._tokenise([tail for context, tail in moved if not context], special=False)
        return [
            self._joint(context, tail, texts) if context else ((self.prefix_id,), self._unfronted(alone[tail]))
            for context, tail in moved
        ]

    def encode(self, task: TaskRequests) -> list[Encoded]:
        """Encodes all requests of a task, in order; each distinct text is tokenised once, in one batch."""
        pairs = [[_shift_spaces(*pair) for pair in _pairs(request)] for request in task.requests]
        both: list[dict[str, tuple[int, ...]]] = []
        for templated in (False, True):
            chosen = [parts for parts, each in zip(pairs, task.requests, strict=True) if each.templated == templated]
            joint = [c for parts in chosen for context, tail in parts for c in (context, context + tail)]
            both.append(self._tokenise(joint, special=not templated or self._always_front))
        encoded = []
        for index, (request, parts) in enumerate(zip(task.requests, pairs, strict=True), start=task.first):
            texts = both[request.templated]
            if request.mode == "generate":
                encoded.append(self._generation(index, request, texts[parts[0][0]]))
            elif request.mode == "text":
                encoded.append(self._text(index, request, texts[parts[0][1]]))
            else:
                encoded.append(self._choices(index, request, parts, texts))
        return encoded

    def _generation(self, index: int, request: Request, ids: tuple[int, ...]) -> Encoded:
        prompt = (ids or (self.prefix_id,))[-max(1, self.max_length - 1) :]  # an answer has one token at least
        room = self.max_length - len(prompt)
        limited = request.limit > room
        answer = min(request.max_tokens, room)  # an answer has the right of way over a thought
        if limited:
            request = replace(request, max_tokens=answer, thought_tokens=min(request.thought_tokens, room - answer))
        return Encoded(index, request, (), prompt, len(ids), len(prompt) < len(ids), limited)

    def _choices(
        self, index: int, request: Request, parts: list[tuple[str, str]], texts: dict[str, tuple[int, ...]]
    ) -> Encoded:
        rows: dict[tuple[int, ...], list[Span]] = {}
        truncated = False
        longest = 0
        for choice, (context, continuation) in enumerate(parts):
            head, tail = self._joint(context, continuation, texts)
            if continuation.strip() and not tail:
                raise UserError(
                    f"the tokenizer makes no token of the choice {continuation!r}, whose likelihood would be 1",
                    hint="leave out such rows, or write the choice in letters that the tokenizer knows",
                )
            if not tail:
                continue  # the continuation is empty: nothing to score
            whole = (head + tail)[-(self.max_length + 1) :]
            truncated |= len(head + tail) > self.max_length + 1
            longest = max(longest, len(head))
            ids = whole[:-1]
            targets = tail[-len(ids) :]
            rows.setdefault(ids, []).append(Span(choice, len(ids) - len(targets), targets))
        found = tuple(ScoreRow(ids, tuple(spans)) for ids, spans in rows.items())
        return Encoded(index, request, found, (), longest, truncated)

    def _joint(
        self, context: str, continuation: str, texts: dict[str, tuple[int, ...]]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        head = texts[context] if context else (self.prefix_id,)
        tail = texts[context + continuation][len(head) :] if context else ()
        if not tail:  # no context, or context and continuation together have no more tokens than the context alone
            tail = self._tokenise([continuation], special=False)[continuation]
        return head, tail

    def _text(self, index: int, request: Request, tokens: tuple[int, ...]) -> Encoded:
        length = min(request.window or self.max_length, self.max_length)
        stride = request.stride
        rows = _rolling(self.prefix_id, tokens, length) if stride is None else _strided(tokens, length, stride)
        return Encoded(index, request, tuple(rows), (), len(tokens), False)

    def _tokenise(self, texts: Sequence[str], *, special: bool = True) -> dict[str, tuple[int, ...]]:
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        batch = self.tokenizer(distinct, add_special_tokens=False, return_attention_mask=False, verbose=False)
        found = dict(zip(distinct, map(tuple, batch["input_ids"]), strict=True))
        return {text: self._fronted(ids) for text, ids in found.items()} if special else found

    def _fronted(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Ids after what the tokenizer puts in front, unless the text has it already: a chat template may write it."""
        return ids if ids[: len(self._front)] == self._front else self._front + ids

    def _unfronted(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Ids without a prefix token that the text itself has."""
        return ids[1:] if len(ids) > 1 and ids[0] == self.prefix_id else ids


def load_encoder(snapshot: Snapshot, *, trust_remote_code: bool = False) -> Encoder:
    """The encoder that a model is scored with, loaded without the model's weights: for dry runs and previews.

    Args:
        snapshot: The model.
        trust_remote_code: Whether the tokenizer's own code may run.

    Raises:
        UserError: The tokenizer cannot be read, or has no end-of-sequence token.
    """
    tokenizer = load_tokenizer(snapshot.folder, trust_remote_code=trust_remote_code)
    config = load_header(snapshot.folder) if is_gguf(snapshot.folder) else snapshot.config
    text_config = config | (config.get("text_config") or {})
    return Encoder(tokenizer, input_limit(text_config, tokenizer))


def _rolling(prefix_id: int, tokens: tuple[int, ...], length: int) -> Iterator[ScoreRow]:
    """Windows that score every token once: the first follows the prefix token, each later one a token of the text."""
    done = 0
    while done < len(tokens):
        targets = tokens[done : done + length]
        end = done + len(targets)
        ids = (prefix_id, *tokens[: end - 1]) if done == 0 else tokens[max(0, end - length - 1) : end - 1]
        yield ScoreRow(ids, (Span(0, len(ids) - len(targets), targets),))
        done = end


def _strided(tokens: tuple[int, ...], length: int, stride: int) -> Iterator[ScoreRow]:
    """Windows that start `stride` apart and score what no earlier window did; the text's first token is not scored."""
    done = 0
    for start in range(0, len(tokens), min(stride, length)):
        end = min(start + length, len(tokens))
        first = max(done, start + 1)
        if first < end:
            yield ScoreRow(tokens[start : end - 1], (Span(0, first - start - 1, tokens[first:end]),))
        done = end
        if end == len(tokens):
            return


def _pairs(request: Request) -> list[tuple[str, str]]:
    if request.mode == "generate":
        return [(request.contexts[0], "")]
    if request.mode == "text":
        return [("", request.continuations[0])]
    contexts = request.contexts * len(request.continuations) if len(request.contexts) == 1 else request.contexts
    return list(zip(contexts, request.continuations, strict=True))


def _shift_spaces(context: str, continuation: str) -> tuple[str, str]:
    if not continuation:
        return context, continuation
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
