"""Training files to examples: alpaca, prompt and completion, messages, plain text; the format is read off the columns.

| format | columns |
| --- | --- |
| prompt-completion | `prompt`, `completion` (or what `--train-columns` maps to them) |
| alpaca | `instruction`, `output`, and `input` where there is one |
| messages | `messages` (or `conversations`): `role`/`content`, or ShareGPT's `from`/`value`; the last assistant turn is learned |
| text | `text`: the loss is on all of it |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.api import Message, Row
from harness.chat import PLAIN, ChatTemplate
from harness.errors import UserError
from harness.render import Example

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}
_MESSAGES = 'messages are `{"role": "user", "content": "…"}`, the last one the assistant\'s'
_WANTED = "prompt + completion, instruction + output, messages, or text"


def examples_from_rows(
    name: str,
    rows: Sequence[Row],
    *,
    columns: Mapping[Any, str] | None = None,
    template: ChatTemplate | None = None,
    chat: bool = False,
) -> list[Example]:
    """Examples from the rows of a file or dataset.

    Args:
        name: The data's name, for messages.
        rows: The rows.
        columns: Ours to theirs: `{"prompt": "question", "completion": "answer"}`.
        template: The model's chat template: what messages are written in.
        chat: Whether plain prompts become user turns under the template too.

    Raises:
        UserError: A column is missing (those there are listed), or a row has no answer to learn.

    Example:
        >>> examples_from_rows("x", [{"prompt": "1 + 1 =", "completion": "2"}])[0].completion
        ' 2'
    """
    if not rows:
        raise UserError(f"training data `{name}` has no rows")
    there = list(rows[0])
    if columns:
        columns = _with_partner(columns, there)
        rows = [_mapped(name, index, row, columns) for index, row in enumerate(rows)]
    made = [_example(name, index, row, there, template, chat) for index, row in enumerate(rows)]
    examples = [example for example in made if example is not None]
    if not examples:
        raise UserError(f"training data `{name}` has no text in any of its {len(made)} rows")
    return examples


def _with_partner(columns: Mapping[Any, str], there: Sequence[str]) -> Mapping[Any, str]:
    """With `prompt` or `completion` alone given, the other keeps its name where it is there."""
    partners = {"prompt", "completion"} if {"prompt", "completion"} & columns.keys() else set()
    return {**{column: column for column in partners if column in there}, **columns}


def _mapped(name: str, index: int, row: Row, columns: Mapping[Any, str]) -> Row:
    missing = [theirs for theirs in columns.values() if theirs not in row]
    if missing:
        where = f", row {index}," if index else ""
        raise UserError(
            f"training data `{name}`{where} has no column {', '.join(f'`{c}`' for c in missing)}",
            hint=f"it has: {', '.join(row)}",
        )
    return {ours: row[theirs] for ours, theirs in columns.items()}


def _example(
    name: str, index: int, row: Row, there: list[str], template: ChatTemplate | None, chat: bool
) -> Example | None:
    paired = template if chat else None
    if "messages" in row or "conversations" in row:
        return _conversation(name, index, row.get("messages") or row.get("conversations"), template)
    if "prompt" in row and "completion" in row:
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, list):
            answer = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
            return _conversation(name, index, [*prompt, *answer], template)
        return _pair(_text(name, index, "prompt", prompt), _text(name, index, "completion", completion), paired)
    if "instruction" in row and "output" in row:
        parts = [_text(name, index, key, row.get(key) or "") for key in ("instruction", "input")]
        prompt = "\n\n".join(part for part in parts if part)
        return _pair(prompt, _text(name, index, "output", row["output"]), paired, separator="\n\n")
    if "text" in row:
        text = _text(name, index, "text", row["text"])
        return Example("", text) if text else None
    raise UserError(
        f"training data `{name}`: row {index} has the columns {', '.join(row) or 'none'}; wanted: {_WANTED}",
        hint=f"map them: `--train-columns prompt={there[0] if there else 'X'},completion={there[-1] if there else 'Y'}`",
    )


def _pair(prompt: str, completion: str, template: ChatTemplate | None, separator: str = " ") -> Example:
    """A prompt and its answer; `separator` stands between them where neither brings white space."""
    if template is not None:
        return Example(template.render([{"role": "user", "content": prompt}]), completion)
    if not prompt or prompt[-1].isspace() or completion[:1].isspace():
        return Example(prompt, completion)
    return Example(prompt, separator + completion)


def _conversation(name: str, index: int, turns: Any, template: ChatTemplate | None) -> Example:
    messages: list[Message] = []
    for turn in turns if isinstance(turns, list) else []:
        if not isinstance(turn, Mapping):
            raise UserError(
                f"training data `{name}`: row {index} has a {type(turn).__name__} as a turn", hint=_MESSAGES
            )
        role, content = turn.get("role") or turn.get("from"), turn.get("content") or turn.get("value") or ""
        role = _ROLES.get(str(role), str(role))
        messages.append({"role": role, "content": _text(name, index, f"{role} turn", content)})
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if len(messages) < 2:
        raise UserError(
            f"training data `{name}`: row {index} has no assistant turn after another",
            hint=_MESSAGES,
        )
    prompt = (template or PLAIN).render(messages[:-1])
    answer = messages[-1]["content"]
    return Example(prompt, answer if template else " " + answer)


def _text(name: str, index: int, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(
            f"training data `{name}`: row {index} has {type(value).__name__} in `{column}`, not text",
            hint="every prompt and answer must be a string",
        )
    return value
