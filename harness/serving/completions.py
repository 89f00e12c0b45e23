"""Asks a server for completions and reads its answers; fields that cannot be right are one error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.serving.capabilities import Capabilities, SendingWay, ServerAnswer
from harness.serving.client import Client
from harness.serving.faults import KEPT, ServerFault

_THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a message in which servers put a thought, without its marks."""
_MARKS = ("<think>", "</think>")
_GIVEN_UP = ("abort", "error")
"""Reasons for the end of a text that the server has given up: vLLM's, and that of gateways."""


def complete(
    client: Client,
    way: SendingWay,
    prompt: str | Sequence[int],
    limit: int,
    limit_field: str = "max_tokens",
    marks: tuple[str, str] = _MARKS,
    **more: Any,
) -> ServerAnswer:
    """One greedy completion, unless `more` has a temperature.

    Args:
        client: The client.
        way: How the prompt is sent.
        prompt: Token ids for `ids`, a text for `text`, messages as JSON for `chat`.
        limit: Tokens to write at most.
        limit_field: Name of the field with the limit.
        marks: The marks around a thought, which servers leave out where they give it apart.
        **more: Further fields.

    Raises:
        ServerFault: The server refuses, or its answer cannot be right.
    """
    body = {limit_field: limit, "temperature": 0, **more}
    if way == "chat":
        assert isinstance(prompt, str)
        return read(client, client.chat(messages=json.loads(prompt), **body), chat=True, marks=marks)
    return read(client, client.complete(prompt=prompt if isinstance(prompt, str) else list(prompt), **body), chat=False)


def read(client: Client, answer: Mapping[str, Any], *, chat: bool, marks: tuple[str, str] = _MARKS) -> ServerAnswer:
    """Reads the first completion of an answer.

    Args:
        client: The client.
        answer: The answer.
        chat: Whether it is a message.
        marks: The marks around a thought.

    Raises:
        ServerFault: A field is missing or has an impossible value, or the server has given the text up.
    """
    url = client.served.url
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        if answer.get("error"):  # with the status of an answer that is right
            said = client.said(json.dumps(answer).encode())
            raise ServerFault("answer", f"`{url}` answers with an error: {said}", f"see the server's own log; {KEPT}")
        raise ServerFault("answer", f"`{url}` answers without `choices`", "is it an OpenAI-compatible server?")
    if (ended := choice.get("finish_reason")) in _GIVEN_UP:
        raise ServerFault(
            "answer",
            f"`{url}` did not finish a text (`finish_reason` is `{ended}`)",
            f"see the server's own log; {KEPT}",
        )
    text = _message(choice, marks) if chat else choice.get("text")
    if not isinstance(text, str):
        raise ServerFault("answer", f"`{url}` answers with a choice without text", "is it an OpenAI-compatible server?")
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    assert isinstance(usage, dict)
    ids, values = choice.get("token_ids"), token_values(choice)
    if ids is None:  # llama.cpp has them beside the log-probabilities
        ids = [each.get("id") for each in _content(choice)] or None
    return ServerAnswer(
        text,
        tuple(ids) if isinstance(ids, list) and all(isinstance(each, int) for each in ids) else None,
        tuple(map(float, values)) if isinstance(values, list) and all(map(is_number, values)) else (),
        choice.get("finish_reason") == "length",
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        choice,
        str(answer.get("model") or ""),
    )


def check_prompt(client: Client, capabilities: Capabilities, answer: ServerAnswer, tokens: int) -> None:
    """Checks that the server has read the whole prompt, and nothing more.

    Args:
        client: The client.
        capabilities: The findings of the probe.
        answer: The server's answer.
        tokens: Tokens of the prompt as we count them.

    Raises:
        ServerFault: It has read another number of tokens.
    """
    if capabilities.counts_as_we_do and answer.prompt_tokens is not None and answer.prompt_tokens != tokens:
        less = answer.prompt_tokens < tokens
        raise ServerFault(
            "answer",
            f"`{client.served.url}` read {answer.prompt_tokens} tokens where the prompt has {tokens}"
            + (": it cuts prompts and does not say so" if less else ""),
            "start the server with a longer context, or give fewer solved examples (`--num-fewshot`)" if less else None,
        )


def token_values(choice: Mapping[str, Any]) -> list[Any] | None:
    """The log-probabilities of a choice, in the form of completions, or of messages, which llama.cpp has for both."""
    said = choice.get("logprobs")
    values = said.get("token_logprobs") if isinstance(said, dict) else None
    if isinstance(values, list):
        return values
    return [each.get("logprob") for each in _content(choice)] or None


def _content(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    said = choice.get("logprobs")
    found = said.get("content") if isinstance(said, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _message(choice: Mapping[str, Any], marks: tuple[str, str]) -> str | None:
    """The text of a message, a thought before it with its marks."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return None
    content = message.get("content") or ""
    thought = next((message[name] for name in _THOUGHTS if isinstance(message.get(name), str) and message[name]), "")
    if not isinstance(content, str):
        return None
    if not thought:
        return content
    opening, closing = marks
    return f"{opening}{thought}{closing}{content}" if content else f"{opening}{thought}"


def is_number(value: Any) -> bool:
    """Whether a value of an answer can be a log-probability."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9  # nor NaN


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
