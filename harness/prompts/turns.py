"""Turns of conversations in training rows, as OpenAI, ShareGPT, ms-swift and LLaMA-Factory write them.

Example:
    >>> read_turns("row 0", [{"from": "Human", "value": "hi"}], Counter())[0].message
    {'role': 'user', 'content': 'hi'}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.prompts.cells import from_json, has_content, is_missing
from harness.prompts.content import MEDIA, content_text
from harness.prompts.tool_calls import read_calls

ROLES: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "developer"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "bot", "chatgpt", "chatbot", "ai", "model"),
    "tool": ("tool", "function", "observation", "tool_response", "function_response", "ipython"),
}
"""The roles that chat templates know, each with its names in data sets, in lower case."""
CALLING = ("function_call", "tool_call")
"""Roles of assistant turns whose text is a tool call as JSON."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of what an assistant thinks before it answers; transformers copies them to one another for chat templates."""
WEIGHTS = ("weight", "train", "training", "loss", "loss_scale")
"""Keys that say whether a turn is learned."""
HOW_TO_WRITE = 'write messages as `{"role": "user", "content": "…"}`; the last one must be the assistant\'s'
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names} | dict.fromkeys(CALLING, "assistant")
_ALWAYS_READ = ("role", "from", "content", "value")
_READ = {
    "assistant": (*_ALWAYS_READ, *WEIGHTS, *REASONING, "tool_calls", "function_call"),
    "tool": (*_ALWAYS_READ, "tool_call_id", "name"),
}


@dataclass(frozen=True)
class Turn:
    """One turn."""

    message: Mapping[str, Any]
    """The turn as chat templates read it: `role`, `content`, and if given `reasoning_content`, `tool_calls`, …"""
    learned: bool = True
    """False: only context, because the data give the turn the weight 0."""

    @property
    def role(self) -> str:
        """`system`, `user`, `assistant` or `tool`."""
        return str(self.message["role"])

    @property
    def content(self) -> str:
        """The text; empty if the turn only calls tools."""
        return str(self.message["content"])

    @property
    def reasoning(self) -> str:
        """The reasoning before the answer; empty if there is none."""
        return str(self.message.get("reasoning_content", ""))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls."""
        return list(self.message.get("tool_calls", ()))


def read_turns(where: str, given: Any, unused: Counter[str]) -> list[Turn]:
    """Reads the turns of a row.

    Args:
        where: The data and the row, for messages.
        given: The list of turns.
        unused: Counts the keys of turns that are not used.

    Raises:
        UserError: A turn has an unknown role, no content, or a value of the wrong type.
    """
    turns = []
    for position, turn in enumerate(given if isinstance(given, list) else []):
        if not isinstance(turn, Mapping):
            raise UserError(f"{where} has a {type(turn).__name__} as a turn", hint=HOW_TO_WRITE)
        turns.append(_read_turn(where, position, turn, unused))
    return turns


def history_turns(where: str, column: str, value: Any) -> list[Mapping[str, Any]]:
    """The turns before the prompt of a row, not yet read.

    Args:
        where: The data and the row, for messages.
        column: The data's name of the column.
        value: `[question, answer]` pairs or turns, or the same as JSON text.

    Raises:
        UserError: It is something else.

    Example:
        >>> history_turns("row 0", "history", [["1 + 1?", "2"]])
        [{'role': 'user', 'content': '1 + 1?'}, {'role': 'assistant', 'content': '2'}]
    """
    given = from_json(where, column, value) if has_content(value) else []
    turns: list[Mapping[str, Any]] = []
    for entry in given if isinstance(given, list) else [given]:
        if isinstance(entry, Mapping):
            turns.append(entry)
        elif isinstance(entry, list | tuple) and len(entry) == 2:
            turns += [{"role": "user", "content": entry[0]}, {"role": "assistant", "content": entry[1]}]
        else:
            raise UserError(
                f"{where} has `{column}` in an unknown form", hint='write pairs: `[["question", "answer"], …]`'
            )
    return turns


def _read_turn(where: str, position: int, given: Mapping[str, Any], unused: Counter[str]) -> Turn:
    named, role = _role(where, position, given)
    if media := [key for key in MEDIA if has_content(given.get(key))]:
        raise UserError(
            f"{where} has content in `{media[0]}` of turn {position} ({role}), but only text is trained on",
            hint="leave these rows out, or remove the key if their text is enough",
        )
    read = _READ.get(role, _ALWAYS_READ)
    unused.update(
        key
        for key, value in given.items()
        if key not in read and has_content(value) and not (key in WEIGHTS and not value)  # others are never learned
    )
    contents = [given[key] for key in ("content", "value") if has_content(given.get(key))]
    unused["value"] += len(contents) == 2 and contents[0] != contents[1]
    place = f"turn {position} ({named if named in CALLING else role})"
    content = given.get("value") if is_missing(given.get("content")) else given["content"]
    message: dict[str, Any] = {"role": role}
    calls = []
    if named in CALLING:
        calls, content = read_calls(where, place, content), ""
        if not calls:
            raise UserError(f"{where} has no call in {place}", hint='write `{"name": "…", "arguments": {…}}`')
    elif role == "assistant":
        for key in ("tool_calls", "function_call"):
            if has_content(given.get(key)):
                calls += read_calls(where, f"{key}` of `{place}", given[key])
    nothing = is_missing(content) or content == []
    if nothing and calls:
        content = ""
    elif nothing:
        raise UserError(
            f"{where} has no `content` in {place}", hint="give the turn a text as `content`, or leave the row out"
        )
    message["content"] = content_text(where, f"{role} turn", content, unused)
    if calls:
        message["tool_calls"] = calls
    message |= {key: given[key] for key in ("tool_call_id", "name") if role == "tool" and has_content(given.get(key))}
    if role != "assistant":
        return Turn(message)
    thoughts = {
        key: content_text(where, f"reasoning of {place}", given[key], unused)
        for key in REASONING
        if has_content(given.get(key))
    }
    if thoughts:
        first = next(iter(thoughts.values()))
        message |= {"thinking": first, **thoughts, "reasoning_content": first}
    return Turn(message, learned=all(_is_learned(where, place, key, given.get(key)) for key in WEIGHTS))


def _role(where: str, position: int, given: Mapping[str, Any]) -> tuple[str, str]:
    """The role as the data name it, in lower case, and the role that templates know."""
    value = given.get("from") if is_missing(given.get("role")) else given["role"]
    if is_missing(value):
        raise UserError(f"{where} has no `role` in turn {position}", hint=HOW_TO_WRITE)
    named = str(value).strip().lower().replace("-", "_").replace(" ", "_")
    if named not in _ROLE_OF:
        raise UserError(
            f"{where} has a turn with the unknown role `{value}`", hint=f"known roles: {', '.join(_ROLE_OF)}"
        )
    return named, _ROLE_OF[named]


def _is_learned(where: str, place: str, key: str, value: Any) -> bool:
    if is_missing(value):
        return True
    if isinstance(value, str):
        value = {"true": 1, "false": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}.get(value.strip().lower(), value)
    if value not in (0, 1):
        raise UserError(
            f"{where} has the value {value!r} as `{key}` of {place}",
            hint="0 or false: context only; 1 or true: learned",
        )
    return bool(value)
