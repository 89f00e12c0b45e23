"""Log-probabilities of given tokens from a server: of a prompt's own tokens, or of chosen next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from harness.serving.client import Client
from harness.serving.completions import is_number, read, token_values
from harness.serving.faults import ServerFault

Value = tuple[float, bool]
"""A log-probability, and whether no other token has a higher one."""
_OWN_ID = "token_id:"
_ABOVE_ONE = 1e-3
"""Rounding by which the logarithm of a probability may be above zero."""


def of_prompt(client: Client, field: Literal["prompt_logprobs", "echo"], ids: Sequence[int], start: int) -> list[Value]:
    """The values of `ids[start:]`, each after all ids before it.

    Args:
        client: The client.
        field: How the server is asked.
        ids: The prompt.
        start: Position of the first wanted id, at least 1.

    Raises:
        ServerFault: The server refuses, or gives no value for a wanted id.
    """
    body: dict[str, Any] = {"prompt": list(ids), "max_tokens": 1, "temperature": 0}
    body |= {"prompt_logprobs": 1} if field == "prompt_logprobs" else {"echo": True, "logprobs": 1}
    answer = read(client, client.complete(**body), chat=False)
    if answer.prompt_tokens not in (None, len(ids)):
        raise _missing(client, f"it read {answer.prompt_tokens} tokens where the prompt has {len(ids)}")
    if field == "prompt_logprobs":
        entries = answer.raw.get("prompt_logprobs")
        if not isinstance(entries, list) or len(entries) != len(ids):
            raise _missing(
                client, "it ignores `prompt_logprobs`" if not entries else "it gives not one value for each token"
            )
        return [_value(client, entries[place], str(ids[place])) for place in range(start, len(ids))]
    said, own = answer.raw.get("logprobs"), token_values(answer.raw)
    top = said.get("top_logprobs") if isinstance(said, dict) else None
    if own is None:
        raise _missing(client, "it gives no log-probabilities with `echo`")
    if len(own) < len(ids) or own[0] is not None:
        raise _missing(client, "it ignores `echo`")
    found = []
    for place in range(start, len(ids)):
        best = top[place] if isinstance(top, list) and place < len(top) else None
        found.append(_checked(client, own[place], best.values() if isinstance(best, dict) else ()))
    return found


def of_next(client: Client, ids: Sequence[int], wanted: Sequence[int]) -> list[Value]:
    """The values of several possible next tokens after a prompt.

    Raises:
        ServerFault: The server refuses, or gives no value for a wanted id.
    """
    answer = read(
        client,
        client.complete(
            prompt=list(ids),
            max_tokens=1,
            temperature=0,
            logprobs=1,
            logprob_token_ids=list(dict.fromkeys(wanted)),
            return_tokens_as_token_ids=True,
        ),
        chat=False,
    )
    if answer.prompt_tokens not in (None, len(ids)):
        raise _missing(client, f"it read {answer.prompt_tokens} tokens where the prompt has {len(ids)}")
    said = answer.raw.get("logprobs")
    top = said.get("top_logprobs") if isinstance(said, dict) else None
    values = top[0] if isinstance(top, list) and top and isinstance(top[0], dict) else {}
    best = values.values()
    return [_checked(client, values.get(f"{_OWN_ID}{id}"), best) for id in wanted]


def _value(client: Client, entry: Any, id: str) -> Value:
    """The value of one id among the entries of `prompt_logprobs`, which have it under its number as a text."""
    entry = entry if isinstance(entry, dict) else {}
    values = {name: each.get("logprob") if isinstance(each, Mapping) else None for name, each in entry.items()}
    return _checked(client, values.get(id), values.values())


def _checked(client: Client, value: Any, others: Any) -> Value:
    if not is_number(value) or value > _ABOVE_ONE:
        raise _missing(client, f"it gives `{value}` where a log-probability is wanted")
    return float(value), value >= max(filter(is_number, others), default=value)


def _missing(client: Client, why: str) -> ServerFault:
    return ServerFault("answer", f"`{client.served.url}`: {why}", "see the server's own log")
