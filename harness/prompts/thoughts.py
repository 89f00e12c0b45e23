"""Thoughts: the text that a model generates between two marks before its answer. Metrics see the answer alone.

A text has a thought if it begins with the opening mark, or if its prompt ends with that mark. A thought without an end is no
answer. Stop strings do not apply inside a thought, nor to white space between thought and answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from harness.api import Output
from harness.jobs import Raw, Request

ThoughtState = Literal["none", "open", "closed"]


def thought_state(text: str, marks: tuple[str, str]) -> ThoughtState:
    """Whether a text has no thought, ends inside one, or has closed it.

    Example:
        >>> thought_state("<think>", ("<think>", "</think>"))
        'open'
    """
    opening, closing = map(text.rfind, marks)
    return "none" if opening == closing else "open" if opening > closing else "closed"


def ends_in_thought(prompt: str, marks: tuple[str, str]) -> bool:
    """Whether a prompt ends with the mark that opens a thought."""
    return prompt.rstrip().endswith(marks[0])


def split_thought(text: str, request: Request) -> tuple[str, str | None]:
    """Splits a generated text into the thought with its marks, and the answer.

    Args:
        text: The text.
        request: Its request, which knows the marks.

    Returns:
        The thought and the white space after it, which are empty if there is none; the answer, None if the thought has no end.

    Example:
        >>> split_thought("<think>6 * 7</think> 42", Request("0", "generate", ("6 * 7 =",)))
        ('<think>6 * 7</think> ', '42')
    """
    opening, closing = request.thought
    if not request.in_thought and not text.lstrip().startswith(opening):
        return "", text
    thought, mark, rest = text.rpartition(closing)  # the last mark, as lm-evaluation-harness does it
    if not mark:
        return text, None
    answer = rest.lstrip()
    return thought + mark + rest[: len(rest) - len(answer)], answer


def answers(texts: Sequence[str], request: Request) -> tuple[str, ...]:
    """The answers in generated texts; an empty text where a thought has no end."""
    return tuple(split_thought(text, request)[1] or "" for text in texts)


def output_of(raw: Raw, request: Request) -> Output:
    """The output of a model for a request as metrics receive it, without thoughts."""
    tokens = raw.tokens - raw.thought_tokens
    return Output(answers(raw.texts, request), raw.loglikelihoods, raw.is_greedy, tokens)


def unfinished(texts: Sequence[str], request: Request) -> int:
    """Number of texts that end inside a thought."""
    return sum(split_thought(text, request)[1] is None for text in texts)
