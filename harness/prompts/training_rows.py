"""Converts training rows to examples; the columns decide the format (`harness.prompts.columns.FORMATS`).

| format | columns |
| --- | --- |
| preference | `chosen` and `rejected`: texts, turns, or whole conversations that begin with the same turns; the prompt as in the formats below; or an answer and `rejected_response`, as ms-swift writes them |
| messages | `messages` (or `conversations`): `role`/`content`, or ShareGPT's `from`/`value`; the last assistant turn is learned |
| prompt-completion | `prompt`, `completion` (or the columns that `--train-columns` maps to them), or ms-swift's `query`, `response` |
| alpaca, Dolly | `instruction`, `output` (or `response`), and optionally `input` (or `context`) |
| text | `text`: the loss covers all of it |

All formats except text may have a `system` column and a `tools` column. Where `history` or `tools` of any row have content,
all rows are conversations. If every assistant turn of a conversation is learned, each turn becomes a separate example,
whose prompt is the conversation before it. Columns and keys that are not used are counted and reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from harness.api import Message, Row
from harness.data.arrow import ArrowTable
from harness.errors import UserError
from harness.jobs import Example
from harness.prompts.cells import TrainingRow, as_text, has_content
from harness.prompts.chat import ChatTemplate
from harness.prompts.columns import (
    PREFERENCES,
    TWO_ANSWERS,
    format_of,
    from_openai,
    row_of,
    suggest_mapping,
    unread_prompt,
)
from harness.prompts.conversation import Conversation
from harness.prompts.marks import read_mark
from harness.prompts.row_keys import refuse_unusable
from harness.prompts.row_notes import RowNotes
from harness.prompts.tool_calls import read_tools
from harness.prompts.turns import HOW_TO_WRITE, Turn, history_turns, read_turns
from harness.settings import STAGES, StageName

_KNOWN_FORMATS = "prompt + completion, instruction + output, messages, chosen + rejected, or text"
_CONVERSATIONAL = ("history", "tools", "functions")
"""Columns that only a conversation can have."""


@dataclass(frozen=True)
class TrainingRows:
    """The examples of a file or data set, and notes on its rows."""

    examples: list[Example]
    notes: list[str]
    """One line for each kind of content that is not used, with counts."""
    rows: list[int]
    """The index of each example's row."""


def read_rows(
    name: str,
    rows: Sequence[Row],
    *,
    columns: Mapping[Any, str] | None = None,
    template: ChatTemplate | None = None,
    chat: bool = False,
    system: str | None = None,
    stage: StageName = "sft",
    every_turn: bool = False,
    turned: bool = False,
) -> TrainingRows:
    """Converts the rows of a file or data set to examples.

    Args:
        name: Name of the data, for messages.
        rows: The rows.
        columns: Our column names to the data set's: `{"prompt": "question", "completion": "answer"}`.
        template: The model's chat template, with which messages are rendered.
        chat: Whether plain prompts become user turns of the template too.
        system: System prompt for rows that have none.
        stage: The training stage: `reward` and `dpo` need a rejected answer, `kto` a mark, `grpo` and `ppo` need no answer.
        every_turn: Whether every assistant turn is learned, or only the last.
        turned: Whether prompts of all rows become turns even if none of these rows needs it.

    Raises:
        UserError: A column is missing (the existing ones are listed), a row has no answer to learn, or it has content
            that training cannot use, such as images.

    Example:
        >>> found = read_rows("x", [{"prompt": "1 + 1 =", "completion": "2", "id": 7}])
        >>> found.examples[0].completion, found.notes
        (' 2', ['columns of x not used: `id` (1 row)'])
    """
    if not rows:
        raise UserError(f"training data `{name}` has no rows", hint="check the split, or the file")
    present = list(rows[0])
    turned = turned or is_conversational(rows)
    classes = rows.class_names if isinstance(rows, ArrowTable) else {}
    reader = _Reader(name, present, columns or {}, template, chat, turned, system, stage, every_turn, classes)
    found = [(index, example) for index, row in enumerate(rows) for example in reader.read(index, row)]
    examples = [example for _, example in found]
    if not examples and reader.notes.nothing_learned:
        raise UserError(
            f"training data `{name}` has nothing to learn in any of its {len(rows)} rows",
            hint="every assistant turn has the weight 0: give those to learn the weight 1",
        )
    if not examples:
        raise UserError(
            f"training data `{name}` has no text in any of its {len(rows)} rows", hint="check the column `text`"
        )
    return TrainingRows(examples, reader.notes.lines(name, len(rows)), [index for index, _ in found])


def is_conversational(rows: Sequence[Row]) -> bool:
    """Whether some rows have turns before the prompt, or tools: prompts of all rows then become turns."""
    # all rows of a table have the columns of the first, and a list costs nothing to search
    searched = [column for column in _CONVERSATIONAL if isinstance(rows, list | tuple) or (rows and column in rows[0])]
    return bool(searched) and any(has_content(row.get(column)) for row in rows for column in searched)


@dataclass(frozen=True)
class _Reader:
    """Converts the rows of one source."""

    name: str
    present: Sequence[str]
    """Columns of the first row."""
    columns: Mapping[Any, str]
    template: ChatTemplate | None
    chat: bool
    turned: bool
    """Whether prompts of all rows become turns, as some rows have turns before the prompt or tools."""
    system: str | None
    stage: StageName
    every_turn: bool
    classes: Mapping[str, Sequence[str]]
    """Names of the classes whose numbers a column holds."""
    notes: RowNotes = field(default_factory=RowNotes)

    def read(self, index: int, given: Row) -> list[Example]:
        """The examples of a row; an empty list if nothing in it is learned."""
        row = self._row(index, given)
        examples = self._examples(row)
        return self._marked(row, examples) if STAGES[self.stage].rows == "marked" else examples

    def _marked(self, row: TrainingRow, examples: Sequence[Example]) -> list[Example]:
        """The examples with their marks; a preference becomes two of them."""
        if "rejected" in row.cells:
            self.notes.pairs += bool(examples)
            better = [replace(each, rejected=None, desirable=True) for each in examples]
            worse = [replace(each, completion=str(each.rejected)) for each in examples]
            return [*better, *(replace(each, rejected=None, desirable=False) for each in worse)]
        if "label" not in row.cells:
            raise UserError(
                f"{row.where} has no `label`, and `stage={self.stage}` learns from answers that are marked good or bad",
                hint="add a column `label` with true or false, or map one: `--train-columns label=COLUMN`",
            )
        column, value = row.name("label"), row.cells["label"]
        names = self.classes.get(column, ())
        if isinstance(value, int) and 0 <= value < len(names):
            value = names[value]
        desirable = read_mark(row.where, column, value)
        return [replace(each, desirable=desirable) for each in examples]

    def _examples(self, row: TrainingRow) -> list[Example]:
        if "rejected" in row.cells:
            return self._preference(row)
        if "messages" in row.cells:
            return self._conversation(row, "messages", row.cells["messages"])
        if "text" in row.cells:
            text = row.text("text")
            self.notes.empty_texts += not text
            return [Example("", text)] if text else []
        column = "output" if "instruction" in row.cells else "completion"
        prompt, answer = self._asked(row), row.cells.get(column)
        known = has_content(answer) or STAGES[self.stage].rows != "prompt"
        if isinstance(prompt, list) or self.turned or self._in_turns:
            asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            if not isinstance(answer, list):
                answer = [{"role": "assistant", "content": self._answer(row, column)}] if known else []
            return self._conversation(
                row, "prompt", [*history_turns(row.where, row.name("history"), row.get("history")), *asked, *answer]
            )
        text = self._answer(row, column) if known else ""
        rendered = self._with_system(row, prompt)
        return [Example(rendered, _separated(rendered, text, "\n\n" if column == "output" else " "))]

    @property
    def _in_turns(self) -> bool:
        """Whether plain prompts become user turns of the template."""
        return self.chat and self.template is not None

    def _row(self, index: int, given: Row) -> TrainingRow:
        """A row in its format; counts the columns that the format does not use."""
        where = f"training data `{self.name}`: row {index}"
        given = given if self.columns else from_openai(given)
        ours = row_of(self.name, index, given, self.columns) if self.columns else given
        found = format_of(ours, self.stage)
        if found is None:
            raise self._unknown_format(where, ours)
        format, columns = found
        if format == TWO_ANSWERS and (column := unread_prompt(ours)):
            raise UserError(
                f"{where} has `chosen` and `rejected` but no `prompt`, and its column `{column}` would not be used",
                hint=f"`--train-columns prompt={column}`; if the answers begin with their prompt:"
                " `--train-columns chosen=chosen,rejected=rejected`",
            )
        if not self.columns:
            has_answer = (
                format not in PREFERENCES and "text" not in format.needs and STAGES[self.stage].rows == "single"
            )
            refuse_unusable(where, given, used=columns, has_answer=has_answer)
        names = {column: self.columns.get(name, name) for column, name in columns.items()} if self.columns else columns
        for name in given.keys() - names.values():
            self.notes.columns[name] += has_content(given[name])
        return TrainingRow(where, {column: ours[name] for column, name in columns.items()}, names)

    def _answer(self, row: TrainingRow, column: str) -> str:
        """The text of an answer.

        Raises:
            UserError: It is no text; two answers in a list are LLaMA-Factory's older form of a preference.
        """
        value = row.cells.get(column)
        if isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value):
            raise UserError(
                f"{row.where} has two answers in `{row.name(column)}`",
                hint="write the better one as `chosen` and the worse one as `rejected`",
            )
        return row.text(column)

    def _unknown_format(self, where: str, row: Row) -> UserError:
        needed = f"a row needs {_KNOWN_FORMATS}"
        if STAGES[self.stage].rows == "pair":
            needed = f"`stage={self.stage}` learns from `chosen` and `rejected`"
        elif STAGES[self.stage].rows == "marked":
            needed = (
                f"`stage={self.stage}` learns from a prompt, an answer and a `label`, or from `chosen` and `rejected`"
            )
        elif STAGES[self.stage].rows == "prompt":
            needed = f"`stage={self.stage}` learns from a `prompt`, `instruction` or messages"
        hint = suggest_mapping(self.present, self.stage)
        if STAGES[self.stage].rows == "pair" and {"label", "kto_tag"} & row.keys():
            hint = "`stage=kto` learns from single answers that are marked good or bad"
        if isinstance(row.get("output"), list):
            hint = "write the better one of the answers in `output` as `chosen`, and the worse one as `rejected`"
        return UserError(f"{where} has the columns {', '.join(row) or 'none'}; {needed}", hint=hint)

    def _asked(self, row: TrainingRow) -> Any:
        """The prompt of a row: a text, or a list of turns."""
        if "instruction" not in row.cells:
            prompt = row.cells.get("prompt")
            return prompt if isinstance(prompt, list) else row.text("prompt")
        return "\n\n".join(part for part in (row.text("instruction"), row.optional_text("input")) if part)

    def _with_system(self, row: TrainingRow, prompt: str) -> str:
        """A prompt after its system prompt, as one text."""
        return "\n\n".join([*(turn["content"] for turn in self._system(row)), prompt])

    def _conversation(self, row: TrainingRow, column: str, given: Any) -> list[Example]:
        """An example for the last assistant turn, or for each; its prompt is the conversation before the turn."""
        given = _from_text(given)
        if not isinstance(given, list) or not given:
            named = "null" if given is None else type(given).__name__
            wrong = "an empty list" if isinstance(given, list) else f"{named}, not a list of turns,"
            raise UserError(f"{row.where} has {wrong} in `{row.name(column)}`", hint=HOW_TO_WRITE)
        turns = read_turns(row.where, given, self.notes.turn_keys)
        if column == "prompt" and [turn.role for turn in turns[-2:]] == ["assistant", "assistant"]:
            raise UserError(
                f"{row.where}: `{row.name(column)}` ends with an assistant turn, so the answer would be a second one",
                hint="begin the answer with the text of that turn, and take the turn out of the prompt",
            )
        talk = self._talk(row, turns)
        if turns[-1].role != "assistant" and STAGES[self.stage].rows == "prompt":
            self._check(talk, len(turns))
            return [Example(talk.prompt(len(turns)), "", turn_end=talk.turn_end)]
        answers = [position for position, turn in enumerate(turns) if turn.role == "assistant" and position]
        if not answers:
            raise UserError(f"{row.where} has no assistant turn after another turn", hint=HOW_TO_WRITE)
        learned = [position for position in answers if turns[position].learned]
        self.notes.context_turns += len(answers) - len(learned)
        self.notes.nothing_learned += not learned
        self.notes.unanswered += bool(learned) and learned[-1] < len(turns) - 1
        chosen = learned if self.every_turn else learned[-1:]
        self._check(talk, max(chosen, default=-1) + 1)
        return [self._example(talk, position) for position in chosen]

    def _talk(self, row: TrainingRow, turns: Sequence[Turn]) -> Conversation:
        """The turns with the row's system prompt and tools."""
        has_system = bool(turns) and turns[0].role == "system"
        self.notes.second_systems += has_system and has_content(row.get("system"))
        tools = read_tools(row.where, row.name("tools"), row.get("tools"))
        talk = Conversation(row.where, turns, self.template, () if has_system else self._system(row), tools)
        self.notes.moved_systems += talk.moves_system
        return talk

    def _check(self, talk: Conversation, count: int) -> None:
        talk.check(count)
        self.notes.lost_tool_texts += talk.lost_texts(count)

    def _example(self, talk: Conversation, position: int, other: Conversation | None = None) -> Example:
        """An example of a turn, and of the worse one in its place; counts reasoning that the template does not render."""
        turn = talk.turns[position]
        if STAGES[self.stage].rows == "prompt" and self.template is not None and not turn.calls:
            prompt, answer = talk.prompt(position), turn.content  # not learned: it is the reference of the reward
        else:
            prompt, answer = self._learned(talk, position)
        self.notes.lost_context_reasoning += talk.lost_reasoning(position, prompt)
        self.notes.lost_turns += talk.lost_turns(position, prompt)
        worse = None if other is None else self._learned(other, position)[1]
        return Example(prompt, answer, rejected=worse, turn_end=talk.turn_end)

    def _learned(self, talk: Conversation, position: int) -> tuple[str, str]:
        found = talk.answer(position)
        self.notes.thoughts[found.thought] += 1
        return found.prompt, found.text

    def _preference(self, row: TrainingRow) -> list[Example]:
        """An example with a chosen and a rejected answer to one prompt; none if the data exclude the chosen one."""
        before = self._asked(row) if "instruction" in row.cells else row.get("prompt")
        if row.get("messages") is not None:
            before = _from_text(row.cells["messages"])
            if not isinstance(before, list):
                return self._conversation(row, "messages", before)  # raises
        if before is None and "prompt" in row.cells and isinstance(row.get("chosen"), str):
            row.text("prompt")  # raises: the cell is null
        better = next(column for column in ("chosen", "completion", "messages") if column in row.cells)
        chosen, rejected = row.cells[better], row.cells["rejected"]
        if better == "messages":
            chosen, rejected = _from_text(chosen), _from_text(rejected)
            if not isinstance(chosen, list) or not chosen:
                return self._conversation(row, "messages", chosen)  # raises
            before = []
            if row.name("rejected") != "rejected_messages":
                before, chosen = chosen[:-1], chosen[-1:]
        as_texts = isinstance(chosen, str) and isinstance(rejected, str) and not isinstance(before, list)
        if as_texts and not self.turned:
            if before is None:
                before, chosen, rejected = _split_shared(chosen, rejected)
                return [self._text_preference(row, before, chosen, rejected)]  # it may end inside an answer
            before = as_text(row.where, row.name("prompt"), before)
            if not self._in_turns:
                return [self._text_preference(row, before, chosen, rejected)]
        if before is not None and not isinstance(before, list):
            before = [{"role": "user", "content": as_text(row.where, row.name("prompt"), before)}]
        asked = before or []
        turns = read_turns(
            row.where,
            [*history_turns(row.where, row.name("history"), row.get("history")), *asked],
            self.notes.turn_keys,
        )
        answers = [self._answer_turns(row, better, chosen), self._answer_turns(row, "rejected", rejected)]
        if all(answer and answer[0].role != "assistant" for answer in answers):  # whole conversations
            shared = _shared_turns(*answers)
            said = {turn.content for turn in answers[0][:shared]}
            self.notes.columns[row.name("prompt")] += any(turn.content not in said for turn in turns)
            turns, answers = answers[0][:shared], [answer[shared:] for answer in answers]
        if not turns or any(len(answer) != 1 or answer[0].role != "assistant" for answer in answers):
            raise UserError(
                f"{row.where} must have one assistant turn in `{row.name(better)}` and one in `{row.name('rejected')}`,"
                " after the same turns",
                hint=HOW_TO_WRITE,
            )
        if not all(answer[0].learned for answer in answers):
            self.notes.context_turns += 1
            self.notes.nothing_learned += 1
            return []
        talk = self._talk(row, [*turns, *answers[0]])
        other = replace(talk, turns=[*turns, *answers[1]])
        for each in (talk, other):
            self._check(each, len(turns) + 1)
        return [self._example(talk, len(turns), other)]

    def _text_preference(self, row: TrainingRow, before: str, chosen: str, rejected: str) -> Example:
        """A preference of two texts."""
        prompt = self._with_system(row, before)
        separator = "\n\n" if "instruction" in row.cells else " "
        chosen, rejected = (_separated(prompt, answer, separator) for answer in (chosen, rejected))
        return Example(prompt, chosen, rejected=rejected)

    def _answer_turns(self, row: TrainingRow, column: str, value: Any) -> list[Turn]:
        if isinstance(value, str):
            return [Turn({"role": "assistant", "content": value})]
        if not isinstance(value, list | Mapping):
            as_text(row.where, row.name(column), value)  # raises
        return read_turns(row.where, [value] if isinstance(value, Mapping) else value, self.notes.turn_keys)

    def _system(self, row: TrainingRow) -> list[Message]:
        system = row.optional_text("system") or self.system
        return [{"role": "system", "content": system}] if system else []


def _from_text(turns: Any) -> Any:
    """Turns that may be written as JSON text, as in CSV files; another text stays as it is."""
    if not isinstance(turns, str) or not turns.lstrip().startswith("["):
        return turns
    try:
        return json.loads(turns)
    except (ValueError, RecursionError):
        return turns


def _separated(prompt: str, answer: str, separator: str) -> str:
    touching = prompt and not prompt[-1].isspace() and not answer[:1].isspace()
    return separator + answer if touching and answer else answer


def _split_shared(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The text with which two texts without a prompt begin, as their prompt, and the rest of each."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    shared = "".join(character for character, _ in same)
    cut = len(shared) - len(re.split(r"\s", shared)[-1])  # at the end of a word
    return shared[:cut], chosen[cut:], rejected[cut:]


def _shared_turns(one: Sequence[Turn], other: Sequence[Turn]) -> int:
    """Number of turns with which both conversations begin."""
    count = 0
    while count < min(len(one), len(other)) and one[count].message == other[count].message:
        count += 1
    return min(count, len(one) - 1, len(other) - 1)
