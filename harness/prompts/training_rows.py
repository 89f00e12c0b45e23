"""Training rows to examples; the format is read off the columns.

| format | columns |
| --- | --- |
| preference | `chosen` and `rejected`: texts, turns, or whole conversations with one beginning; the prompt as in the formats below |
| messages | `messages` (or `conversations`): `role`/`content`, or ShareGPT's `from`/`value`; the last assistant turn is learned |
| prompt-completion | `prompt`, `completion` (or what `--train-columns` maps to them) |
| alpaca, Dolly | `instruction`, `output` (or `response`), and `input` (or `context`) where there is one |
| text | `text`: the loss is on all of it |

Any of them but text may have a `system` column. Where several assistant turns of a conversation are to be learned, each is an
example of its own, with all that came before as its prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from harness.api import Message, Row
from harness.errors import UserError
from harness.jobs import Example
from harness.prompts.chat import PLAIN, ChatTemplate
from harness.settings import ONLINE_STAGES, PAIRED_STAGES, Stage

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant"}
_KNOWN_ROLES = ("system", "user", "assistant", "tool", *_ROLES)
_MESSAGES = 'messages are `{"role": "user", "content": "…"}`, the last one the assistant\'s'
_WANTED = "prompt + completion, instruction + output, messages, chosen + rejected, or text"
_TOGETHER: tuple[frozenset[str], ...] = (
    frozenset({"prompt", "completion", "system"}),
    frozenset({"instruction", "input", "output", "system"}),
    frozenset({"messages", "system", "chosen", "rejected"}),
    frozenset({"prompt", "system", "chosen", "rejected"}),
    frozenset({"instruction", "input", "system", "chosen", "rejected"}),
)
"""Columns of one format: with some of them mapped, the others keep their names."""
_USUAL = {
    "prompt": ("question", "problem", "query", "input"),
    "completion": ("answer", "output", "response", "solution"),
    "output": ("response", "answer", "completion", "solution"),
}
"""Names that our columns go by elsewhere."""


def examples_from_rows(
    name: str,
    rows: Sequence[Row],
    *,
    columns: Mapping[Any, str] | None = None,
    template: ChatTemplate | None = None,
    chat: bool = False,
    system: str | None = None,
    stage: Stage = "sft",
    every_turn: bool = False,
) -> list[Example]:
    """Examples from the rows of a file or dataset.

    Args:
        name: The data's name, for messages.
        rows: The rows.
        columns: Ours to theirs: `{"prompt": "question", "completion": "answer"}`.
        template: The model's chat template: what messages are written in.
        chat: Whether plain prompts become user turns under the template too.
        system: A system prompt for rows that bring none.
        stage: What is trained: `reward` and `dpo` need a rejected answer, `grpo` and `ppo` no answer.
        every_turn: Every assistant turn is learned, not the last alone.

    Raises:
        UserError: A column is missing (those there are listed), or a row has no answer to learn.

    Example:
        >>> examples_from_rows("x", [{"prompt": "1 + 1 =", "completion": "2"}])[0].completion
        ' 2'
    """
    if not rows:
        raise UserError(f"training data `{name}` has no rows")
    there = list(rows[0])
    renamed = _with_partners(columns, there) if columns else None
    reader = _Reader(name, there, template, chat, system, stage, every_turn)
    examples: list[Example] = []
    for index, row in enumerate(rows):
        examples += reader.read(index, _mapped(name, index, row, renamed) if renamed else row)
    if not examples:
        raise UserError(f"training data `{name}` has no text in any of its {len(rows)} rows")
    return examples


@dataclass(frozen=True)
class _Reader:
    """Reads the rows of one source."""

    name: str
    there: Sequence[str]
    """Columns of the first row."""
    template: ChatTemplate | None
    chat: bool
    system: str | None
    stage: Stage
    every_turn: bool

    def read(self, index: int, row: Row) -> list[Example]:
        """The examples of a row; none where it holds no text."""
        names = [column for column in ("messages", "conversations") if column in row]
        conversation = next((column for column in names if row[column]), names[0] if names else "")
        turns = row.get(conversation)
        if "chosen" in row and "rejected" in row:
            return [self._preference(index, row, turns)]
        if self.stage in PAIRED_STAGES:
            raise self._unfit(index, row, f"`stage={self.stage}` learns from `chosen` and `rejected`")
        if conversation:
            return self._conversation(index, row, conversation, turns)
        if "prompt" in row and ("completion" in row or self.stage in ONLINE_STAGES):
            prompt, completion = row["prompt"], row.get("completion", "")
            if isinstance(prompt, list):
                answer = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
                known = completion or self.stage not in ONLINE_STAGES
                return self._conversation(index, row, "prompt", [*prompt, *(answer if known else [])])
            return [self._pair(index, row, self._text(index, "prompt", prompt), "completion", completion)]
        answer_column = next((column for column in ("output", "response") if column in row), "output")
        if "instruction" in row and (answer_column in row or self.stage in ONLINE_STAGES):
            prompt = self._instruction(index, row)
            return [self._pair(index, row, prompt, answer_column, row.get(answer_column, ""), "\n\n")]
        if self.stage in ONLINE_STAGES:
            raise self._unfit(index, row, f"`stage={self.stage}` learns from a `prompt`, `instruction` or messages")
        if "text" in row:
            text = self._text(index, "text", row["text"])
            return [Example("", text)] if text else []
        raise self._unfit(index, row, f"wanted: {_WANTED}")

    def _pair(self, index: int, row: Row, prompt: str, column: str, completion: Any, separator: str = " ") -> Example:
        """A prompt and its answer; `separator` stands between them where neither brings white space."""
        answer = self._text(index, column, completion)
        begun = self._prompted(index, row, prompt)
        return Example(begun, self._apart(begun, answer, separator))

    def _apart(self, prompt: str, answer: str, separator: str) -> str:
        in_turns = self.chat and self.template is not None
        touching = not in_turns and prompt and not prompt[-1].isspace() and not answer[:1].isspace()
        return separator + answer if touching and answer else answer

    def _prompted(self, index: int, row: Row, prompt: str) -> str:
        """A prompt with its system prompt: as turns under the template, else one text before the other."""
        system = self._system(index, row)
        if self.chat and self.template is not None:
            return self.template.render([*system, {"role": "user", "content": prompt}])
        return "\n\n".join([*(turn["content"] for turn in system), prompt])

    def _instruction(self, index: int, row: Row) -> str:
        further = "input" if "input" in row else "context"
        parts = [self._text(index, column, row.get(column) or "") for column in ("instruction", further)]
        return "\n\n".join(part for part in parts if part)

    def _conversation(self, index: int, row: Row, column: str, given: Any) -> list[Example]:
        """The last assistant turn after what came before it, or every one."""
        if not isinstance(given, list) or not given:
            wrong = "an empty list" if isinstance(given, list) else f"{type(given).__name__}, not a list of turns,"
            raise UserError(f"training data `{self.name}`: row {index} has {wrong} in `{column}`", hint=_MESSAGES)
        turns = self._turns(index, given)
        if turns[-1]["role"] != "assistant" and self.stage in ONLINE_STAGES:
            return [Example(self._rendered(index, row, turns), "")]
        places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant" and place]
        if not places:
            # not refused before: a template may have roles of its own
            unknown = [turn["role"] for turn in turns if turn["role"] not in _KNOWN_ROLES]
            wrong = f"a turn of the unknown role `{unknown[0]}`" if unknown else "no assistant turn after another"
            hint = f"known: {', '.join(_KNOWN_ROLES)}" if unknown else _MESSAGES
            raise UserError(f"training data `{self.name}`: row {index} has {wrong}", hint=hint)
        return [
            Example(self._rendered(index, row, turns[:place]), self._spoken(turns[place]))
            for place in (places if self.every_turn else places[-1:])
        ]

    def _rendered(self, index: int, row: Row, turns: Sequence[Message]) -> str:
        """Turns up to where the assistant answers."""
        given = turns and turns[0]["role"] == "system"
        return (self.template or PLAIN).render([*([] if given else self._system(index, row)), *turns])

    def _spoken(self, turn: Message) -> str:
        return turn["content"] if self.template else " " + turn["content"]

    def _preference(self, index: int, row: Row, given: Any) -> Example:
        """A better and a worse answer to one prompt."""
        answers = [row["chosen"], row["rejected"]]
        before = given if given else row.get("prompt")
        if before is None and "instruction" in row:
            before = self._instruction(index, row)
        if not isinstance(before, list) and all(isinstance(answer, str) for answer in answers):
            return self._texts(index, row, before, answers)
        asked = [{"role": "user", "content": before}] if isinstance(before, str) else before or []
        spoken = [self._answer_turns(index, column, row[column]) for column in ("chosen", "rejected")]
        turns = self._turns(index, asked)
        if all(answer and answer[0]["role"] != "assistant" for answer in spoken):  # whole conversations
            shared = _shared(*spoken)
            turns, spoken = spoken[0][:shared], [answer[shared:] for answer in spoken]
        if not turns or any(len(answer) != 1 or answer[0]["role"] != "assistant" for answer in spoken):
            raise UserError(
                f"training data `{self.name}`: row {index} must hold one assistant turn in `chosen` and one in `rejected`,"
                " after the same turns",
                hint=_MESSAGES,
            )
        better, worse = (self._spoken(answer[0]) for answer in spoken)
        return Example(self._rendered(index, row, turns), better, rejected=worse)

    def _texts(self, index: int, row: Row, before: Any, answers: Sequence[str]) -> Example:
        """Answers as texts; without a prompt, what both begin with is theirs."""
        better, worse = answers
        if before is None:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(better, worse, strict=False))
            shared = "".join(character for character, _ in same)
            cut = len(shared) - len(re.split(r"\s", shared)[-1])  # at the end of a word
            before, better, worse = shared[:cut], better[cut:], worse[cut:]
        prompt = self._prompted(index, row, self._text(index, "prompt", before))
        separator = "\n\n" if "instruction" in row and "prompt" not in row else " "
        better, worse = (self._apart(prompt, answer, separator) for answer in (better, worse))
        return Example(prompt, better, rejected=worse)

    def _answer_turns(self, index: int, column: str, value: Any) -> list[Message]:
        if isinstance(value, str):
            return [{"role": "assistant", "content": value}]
        if not isinstance(value, list | Mapping):
            self._text(index, column, value)  # refuses it
        return self._turns(index, [value] if isinstance(value, Mapping) else value)

    def _turns(self, index: int, given: Any) -> list[Message]:
        messages: list[Message] = []
        for place, turn in enumerate(given if isinstance(given, list) else []):
            if not isinstance(turn, Mapping):
                raise UserError(
                    f"training data `{self.name}`: row {index} has a {type(turn).__name__} as a turn", hint=_MESSAGES
                )
            role = str(turn.get("role") or turn.get("from"))
            role = _ROLES.get(role, role)
            content = turn.get("value") if turn.get("content") is None else turn["content"]
            called = turn.get("tool_calls") or turn.get("function_call")
            if called or content is None:
                wrong = "a tool call, which is not read," if called else "no `content`"
                raise UserError(
                    f"training data `{self.name}`: row {index} has {wrong} in turn {place} ({role})",
                    hint="write the call into `content` as the model is to write it, or leave the row out"
                    if called
                    else "give the turn a text, or leave the row out",
                )
            messages.append({"role": role, "content": self._text(index, f"{role} turn", content)})
        return messages

    def _system(self, index: int, row: Row) -> list[Message]:
        system = row.get("system") or self.system
        return [{"role": "system", "content": self._text(index, "system", system)}] if system else []

    def _text(self, index: int, column: str, value: Any) -> str:
        if not isinstance(value, str):
            raise UserError(
                f"training data `{self.name}`: row {index} has {type(value).__name__} in `{column}`, not text",
                hint="every prompt and answer must be a string",
            )
        return value

    def _unfit(self, index: int, row: Row, wanted: str) -> UserError:
        return UserError(
            f"training data `{self.name}`: row {index} has the columns {', '.join(row) or 'none'}; {wanted}",
            hint=self._mapping(),
        )

    def _mapping(self) -> str:
        """How to map columns, those named where their names tell what they hold."""
        ours = ["prompt", "completion"]
        if self.stage in PAIRED_STAGES:
            ours = ["chosen", "rejected"]
        elif self.stage in ONLINE_STAGES:
            ours = ["prompt"]
        elif "instruction" in self.there:  # which is put together with `input`
            ours = ["output"]
        found = {
            column: next((name for name in _USUAL.get(column, ()) if name in self.there), "COLUMN")
            for column in ours
            if column not in self.there
        }
        if not found:
            return "mend the row, or leave it out"
        command = "`--train-columns " + ",".join(f"{column}={name}" for column, name in found.items()) + "`"
        among = f" (of: {', '.join(self.there) or 'none'})" if "COLUMN" in found.values() else ""
        if self.stage in PAIRED_STAGES:
            return f"it needs a better and a worse answer to one prompt; under other names: {command}{among}"
        return f"map them: {command}{among}"


def _shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many turns two conversations begin with together."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return min(count, len(one) - 1, len(other) - 1)


def _with_partners(columns: Mapping[Any, str], there: Sequence[str]) -> Mapping[Any, str]:
    """What is mapped, and the other columns of its format under their own names where they are there."""
    formats = [format for format in _TOGETHER if columns.keys() <= format]
    return {**{column: column for format in formats for column in format if column in there}, **columns}


def _mapped(name: str, index: int, row: Row, columns: Mapping[Any, str]) -> Row:
    missing = [theirs for theirs in columns.values() if theirs not in row]
    if missing:
        where = f", row {index}," if index else ""
        raise UserError(
            f"training data `{name}`{where} has no column {', '.join(f'`{c}`' for c in missing)}",
            hint=f"it has: {', '.join(row)}",
        )
    return {ours: row[theirs] for ours, theirs in columns.items()}
