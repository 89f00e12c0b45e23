"""Tools of training rows and calls of them, in the form that chat templates expect.

The form is that of transformers: `{"type": "function", "function": {"name": …, …}}`, with the arguments of a call as an
object. OpenAI writes arguments as JSON text, LLaMA-Factory writes tools and calls without the outer object.

Example:
    >>> read_calls("row 0", "tool_calls", [{"function": {"name": "add", "arguments": '{"a": 1}'}}])
    [{'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 1}}}]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.errors import UserError
from harness.prompts.cells import from_json, has_content


def read_tools(where: str, column: str, value: Any) -> list[dict[str, Any]]:
    """The tools that a row offers.

    Args:
        where: The data and the row, for messages.
        column: The data's name of the column.
        value: A list of tools, or the same as JSON text.

    Raises:
        UserError: It is something else.
    """
    return [_wrapped(where, column, tool) for tool in _listed(where, column, value)]


def read_calls(where: str, column: str, value: Any) -> list[dict[str, Any]]:
    """The tool calls of a turn.

    Args:
        where: The data and the row, for messages.
        column: The key of the turn.
        value: A call or a list of calls, or the same as JSON text.

    Raises:
        UserError: It is something else.
    """
    calls = []
    for given in _listed(where, column, value):
        call = _wrapped(where, column, given)
        function = dict(call["function"])
        arguments = function.get("arguments")
        if isinstance(arguments, str):  # a template that writes arguments as JSON would write the text in quotes
            arguments = from_json(where, f"{column}: arguments", arguments) if arguments.strip() else {}
        calls.append({**call, "function": {**function, "arguments": {} if arguments is None else arguments}})
    return calls


def names_of(calls: list[dict[str, Any]]) -> list[str]:
    """The names of the functions that are called."""
    return [str(call["function"]["name"]) for call in calls]


def with_text_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message whose calls have their arguments as JSON text, for templates that join them to other text."""
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message.get("tool_calls", ())
    ]
    return {**message, "tool_calls": calls} if calls else message


def _listed(where: str, column: str, value: Any) -> list[Any]:
    value = from_json(where, column, value) if has_content(value) else []
    if value is None:  # of the JSON text `null`
        return []
    return value if isinstance(value, list) else [value]


def _wrapped(where: str, column: str, given: Any) -> dict[str, Any]:
    inner = given.get("function", given) if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise UserError(
            f"{where} has an entry in `{column}` without the name of a function",
            hint='write `{"name": "…", …}` or `{"type": "function", "function": {"name": "…", …}}`',
        )
    if "function" not in given:
        outer: Mapping[str, Any] = {"type": "function", "function": given}
    else:
        outer = given if given.get("type") else {"type": "function", **{**given, "type": "function"}}
    cleaned: dict[str, Any] = _without_nulls(outer)
    return cleaned


def _without_nulls(value: Any) -> Any:
    """A value without null fields: in Arrow files, every object has the keys of all objects in its column."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
