"""Converts training rows to examples; the columns decide the format.

| format | columns |
| --- | --- |
| preference | `chosen` and `rejected`: texts, turns, or whole conversations that begin with the same turns; the prompt as in the formats below |
| messages | `messages` (or `conversations`): `role`/`content`, or ShareGPT's `from`/`value`; the last assistant turn is learned |
| prompt-completion | `prompt`, `completion` (or the columns that `--train-columns` maps to them) |
| alpaca, Dolly | `instruction`, `output` (or `response`), and optionally `input` (or `context`) |
| text | `text`: the loss covers all of it |

All formats except text may have a `system` column. If every assistant turn of a conversation is learned, each turn becomes
a separate example, whose prompt is the conversation before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from harness.api import Message, Row
from harness.errors import UserError
from harness.jobs import Example
from harness.prompts.chat import PLAIN, ChatTemplate
from harness.prompts.columns import complete_mapping, rename, suggest_mapping
from harness.prompts.learned import example_of
from harness.settings import STAGES, Stage

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant"}
_KNOWN_ROLES = ("system", "user", "assistant", "tool", *_ROLES)
_MESSAGES = 'write messages as `{"role": "user", "content": "…"}`; the last one must be the assistant\'s'
_KNOWN_FORMATS = "prompt + completion, instruction + output, messages, chosen + rejected, or text"


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
    """Converts the rows of a file or dataset to examples.

    Args:
        name: Name of the data, for messages.
        rows: The rows.
        columns: Our column names to the dataset's: `{"prompt": "question", "completion": "answer"}`.
        template: The model's chat template, with which messages are rendered.
        chat: Whether plain prompts become user turns of the template too.
        system: System prompt for rows that have none.
        stage: The training stage: `reward` and `dpo` need a rejected answer, `grpo` and `ppo` need no answer.
        every_turn: Whether every assistant turn is learned, or only the last.

    Raises:
        UserError: A column is missing (the existing ones are listed), or a row has no answer to learn.

    Example:
        >>> examples_from_rows("x", [{"prompt": "1 + 1 =", "completion": "2"}])[0].completion
        ' 2'
    """
    if not rows:
        raise UserError(f"training data `{name}` has no rows", hint="check the split, or the file")
    present = list(rows[0])
    mapping = complete_mapping(columns, present) if columns else None
    reader = _Reader(name, present, template, chat, system, stage, every_turn)
    examples: list[Example] = []
    for index, row in enumerate(rows):
        examples += reader.read(index, rename(name, index, row, mapping) if mapping else row)
    if not examples:
        raise UserError(
            f"training data `{name}` has no text in any of its {len(rows)} rows", hint="check the column `text`"
        )
    return examples


@dataclass(frozen=True)
class _Reader:
    """Converts the rows of one source."""

    name: str
    present: Sequence[str]
    """Columns of the first row."""
    template: ChatTemplate | None
    chat: bool
    system: str | None
    stage: Stage
    every_turn: bool

    def read(self, index: int, row: Row) -> list[Example]:
        """The examples of a row; an empty list if its text is empty."""
        names = [column for column in ("messages", "conversations") if column in row]
        conversation = next((column for column in names if row[column]), names[0] if names else "")
        turns = row.get(conversation)
        if "chosen" in row and "rejected" in row:
            return [self._preference(index, row, turns)]
        if STAGES[self.stage].rows == "pair":
            raise self._unknown_format(index, row, f"`stage={self.stage}` learns from `chosen` and `rejected`")
        if conversation:
            return self._conversation(index, row, conversation, turns)
        if "prompt" in row and ("completion" in row or STAGES[self.stage].rows == "prompt"):
            prompt, completion = row["prompt"], row.get("completion", "")
            if isinstance(prompt, list):
                answer = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
                known = completion or STAGES[self.stage].rows != "prompt"
                return self._conversation(index, row, "prompt", [*prompt, *(answer if known else [])])
            return [self._pair(index, row, self._text(index, "prompt", prompt), "completion", completion)]
        answer_column = next((column for column in ("output", "response") if column in row), "output")
        if "instruction" in row and (answer_column in row or STAGES[self.stage].rows == "prompt"):
            prompt = self._instruction(index, row)
            return [self._pair(index, row, prompt, answer_column, row.get(answer_column, ""), "\n\n")]
        if STAGES[self.stage].rows == "prompt":
            raise self._unknown_format(
                index, row, f"`stage={self.stage}` learns from a `prompt`, `instruction` or messages"
            )
        if "text" in row:
            text = self._text(index, "text", row["text"])
            return [Example("", text)] if text else []
        raise self._unknown_format(index, row, f"a row needs {_KNOWN_FORMATS}")

    def _pair(self, index: int, row: Row, prompt: str, column: str, completion: Any, separator: str = " ") -> Example:
        """A prompt and its answer, with `separator` between them unless one of them has white space there."""
        answer = self._text(index, column, completion)
        if self.chat and self.template is not None:
            return self._example(index, row, [{"role": "user", "content": prompt}], _turn_of(answer))
        rendered = self._with_system(index, row, prompt)
        return Example(rendered, _separated(rendered, answer, separator))

    def _with_system(self, index: int, row: Row, prompt: str) -> str:
        """A prompt after its system prompt, as one text."""
        return "\n\n".join([*(turn["content"] for turn in self._system(index, row)), prompt])

    def _instruction(self, index: int, row: Row) -> str:
        further = "input" if "input" in row else "context"
        parts = [self._text(index, column, row.get(column) or "") for column in ("instruction", further)]
        return "\n\n".join(part for part in parts if part)

    def _conversation(self, index: int, row: Row, column: str, given: Any) -> list[Example]:
        """An example for the last assistant turn, or for each; its prompt is the conversation before the turn."""
        if not isinstance(given, list) or not given:
            wrong = "an empty list" if isinstance(given, list) else f"{type(given).__name__}, not a list of turns,"
            raise UserError(f"training data `{self.name}`: row {index} has {wrong} in `{column}`", hint=_MESSAGES)
        turns = self._turns(index, given)
        if turns[-1]["role"] != "assistant" and STAGES[self.stage].rows == "prompt":
            return [replace(self._example(index, row, turns, _turn_of("")), completion="")]
        positions = [position for position, turn in enumerate(turns) if turn["role"] == "assistant" and position]
        if not positions:
            # unknown roles are refused only here: a template may have roles of its own
            unknown = [turn["role"] for turn in turns if turn["role"] not in _KNOWN_ROLES]
            wrong = (
                f"a turn with the unknown role `{unknown[0]}`" if unknown else "no assistant turn after another turn"
            )
            hint = f"known roles: {', '.join(_KNOWN_ROLES)}" if unknown else _MESSAGES
            raise UserError(f"training data `{self.name}`: row {index} has {wrong}", hint=hint)
        return [
            self._example(index, row, turns[:position], turns[position])
            for position in (positions if self.every_turn else positions[-1:])
        ]

    def _example(
        self, index: int, row: Row, before: Sequence[Message], answer: Message, rejected: Message | None = None
    ) -> Example:
        """An example of an answer (and of a worse one) to the turns before it."""
        has_system = before and before[0]["role"] == "system"
        asked = [*([] if has_system else self._system(index, row)), *before]
        if self.template is None:
            worse = None if rejected is None else " " + rejected["content"]
            return Example(PLAIN.render(asked), " " + answer["content"], rejected=worse)
        if STAGES[self.stage].rows == "prompt":  # the answer is not learned: it is the reference of the reward
            return Example(self.template.render(asked), answer["content"], turn_end=self.template.turn_end)
        try:
            return example_of(self.template, [*asked, answer], rejected)
        except UserError as error:
            raise UserError(f"training data `{self.name}`: row {index}: {error.message}", error.hint) from error

    def _preference(self, index: int, row: Row, given: Any) -> Example:
        """An example with a chosen and a rejected answer to one prompt."""
        answers = [row["chosen"], row["rejected"]]
        before = given if given else row.get("prompt")
        if before is None and "instruction" in row:
            before = self._instruction(index, row)
        if not isinstance(before, list) and all(isinstance(answer, str) for answer in answers):
            return self._text_preference(index, row, before, answers)
        asked = [{"role": "user", "content": before}] if isinstance(before, str) else before or []
        answer_turns = [self._answer_turns(index, column, row[column]) for column in ("chosen", "rejected")]
        turns = self._turns(index, asked)
        if all(answer and answer[0]["role"] != "assistant" for answer in answer_turns):  # whole conversations
            shared = _shared_turns(*answer_turns)
            turns, answer_turns = answer_turns[0][:shared], [answer[shared:] for answer in answer_turns]
        if not turns or any(len(answer) != 1 or answer[0]["role"] != "assistant" for answer in answer_turns):
            raise UserError(
                f"training data `{self.name}`: row {index} must have one assistant turn in `chosen` and one in `rejected`,"
                " after the same turns",
                hint=_MESSAGES,
            )
        return self._example(index, row, turns, answer_turns[0][0], answer_turns[1][0])

    def _text_preference(self, index: int, row: Row, before: Any, answers: Sequence[str]) -> Example:
        """A preference of two texts; without a prompt, the text with which both begin is the prompt."""
        chosen, rejected = answers
        if before is None:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
            shared = "".join(character for character, _ in same)
            cut = len(shared) - len(re.split(r"\s", shared)[-1])  # at the end of a word
            before, chosen, rejected = shared[:cut], chosen[cut:], rejected[cut:]
        before = self._text(index, "prompt", before)
        if self.chat and self.template is not None:
            asked = [{"role": "user", "content": before}]
            return self._example(index, row, asked, _turn_of(chosen), _turn_of(rejected))
        prompt = self._with_system(index, row, before)
        separator = "\n\n" if "instruction" in row and "prompt" not in row else " "
        chosen, rejected = (_separated(prompt, answer, separator) for answer in (chosen, rejected))
        return Example(prompt, chosen, rejected=rejected)

    def _answer_turns(self, index: int, column: str, value: Any) -> list[Message]:
        if isinstance(value, str):
            return [{"role": "assistant", "content": value}]
        if not isinstance(value, list | Mapping):
            self._text(index, column, value)  # raises
        return self._turns(index, [value] if isinstance(value, Mapping) else value)

    def _turns(self, index: int, given: Any) -> list[Message]:
        messages: list[Message] = []
        for position, turn in enumerate(given if isinstance(given, list) else []):
            if not isinstance(turn, Mapping):
                raise UserError(
                    f"training data `{self.name}`: row {index} has a {type(turn).__name__} as a turn", hint=_MESSAGES
                )
            role = str(turn.get("role") or turn.get("from"))
            role = _ROLES.get(role, role)
            content = turn.get("value") if turn.get("content") is None else turn["content"]
            has_call = turn.get("tool_calls") or turn.get("function_call")
            if has_call or content is None:
                wrong = "an unsupported tool call" if has_call else "no `content`"
                raise UserError(
                    f"training data `{self.name}`: row {index} has {wrong} in turn {position} ({role})",
                    hint="write the call into `content`, as the model should generate it, or leave the row out"
                    if has_call
                    else "give the turn a text as `content`, or leave the row out",
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

    def _unknown_format(self, index: int, row: Row, needed: str) -> UserError:
        return UserError(
            f"training data `{self.name}`: row {index} has the columns {', '.join(row) or 'none'}; {needed}",
            hint=suggest_mapping(self.present, self.stage),
        )


def _turn_of(answer: str) -> Message:
    return {"role": "assistant", "content": answer}


def _separated(prompt: str, answer: str, separator: str) -> str:
    touching = prompt and not prompt[-1].isspace() and not answer[:1].isspace()
    return separator + answer if touching and answer else answer


def _shared_turns(one: Sequence[Message], other: Sequence[Message]) -> int:
    """Number of turns with which both conversations begin."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return min(count, len(one) - 1, len(other) - 1)
