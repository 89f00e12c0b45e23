"""Converts rows to samples with the task's function, and checks both before a model is loaded.

Example:
    >>> sample_fault(Choose("2 + 2 =", ["3", "4"], answer=2)).message
    'answer 2 with 2 choices'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.api import Choose, Generate, Row, Sample, Task, Text
from harness.errors import UserError, did_you_mean, plugin_error
from harness.prompts.nulls import is_null, written_null
from harness.user_code import calling


class _MissingColumn(KeyError):
    """The task's function used a column that the row does not have."""


class _Row(dict[str, Any]):
    """A row whose missing columns can be distinguished from missing keys of other dicts in the task's function."""

    def __missing__(self, column: str) -> Any:
        raise _MissingColumn(column)


def call_on(name: str, function: Callable[[Row], Any], row: Row, index: int | str) -> Any:
    """Calls a function of a task on a row.

    Args:
        name: Name of the task, for messages.
        function: The function, such as the task's `sample`.
        row: The row.
        index: Index or id of the row, for messages.

    Raises:
        UserError: The function raised an exception (only lines of the task's own file are shown).
    """
    try:
        with calling(function, f"`{getattr(function, '__name__', 'sample')}` on row {index} of task `{name}`"):
            return function(_Row(row))
    except UserError as error:
        raise UserError(f"task `{name}`, row {index}: {error.message}", error.hint) from error
    except _MissingColumn as error:
        column = str(error.args[0])
        raise UserError(
            f"task `{name}` uses the column `{column}`, which row {index} does not have", hint=_columns(column, row)
        ) from error
    except Exception as error:
        code = getattr(function, "__code__", None)
        file = Path(code.co_filename) if code else Path(name)
        empty = [f"`{column}`" for column, cell in row.items() if is_null(cell)]
        hint = f"task `{name}` failed on row {index}" + (f", which has no value in {', '.join(empty)}" if empty else "")
        raise plugin_error(file, error, hint=hint, what="an error in") from error


def sample_of(name: str, task: Task, row: Row, index: int) -> Sample:
    """Converts a row to a sample.

    Args:
        name: Name of the task, for messages.
        task: The task.
        row: The row.
        index: Index of the row in the data, from 0.

    Raises:
        UserError: The row is not a mapping, the task's function raises an exception, or its sample cannot be scored.
    """
    if not isinstance(row, Mapping):
        raise UserError(
            f"task `{name}`: row {index} is a {type(row).__name__}, not a mapping from columns to values",
            hint='rows are dicts, such as `{"question": "…", "answer": "…"}`',
        )
    sample = call_on(name, task.sample, row, index)
    if not isinstance(sample, Generate | Choose | Text):
        raise UserError(
            f"task `{name}`: `sample` returned a {type(sample).__name__} for row {index}",
            hint="return Generate(…), Choose(…) or Text(…)",
        )
    fault = sample_fault(sample) or _half_character(sample)
    if fault is not None:
        raise UserError(f"task `{name}`, row {index}: {fault.message}", fault.hint)
    refuse_null(name, task.sample, row, index, texts_of(sample), texts_of)
    return sample


def _half_character(sample: Sample) -> UserError | None:
    """The error of a text that was cut inside a character: no tokenizer and no UTF-8 file accepts it."""
    stops = sample.stop if isinstance(sample, Generate) else ()
    for text in [*texts_of(sample), *stops, str(sample.id or "")]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = ascii(text[error.start])[1:-1]
            return UserError(
                f"a text of the sample has half of a character ({half})", hint="cut texts between characters"
            )
    return None


def refuse_null(
    name: str,
    function: Callable[[Row], Any],
    row: Row,
    index: int | str,
    texts: Sequence[str],
    read: Callable[[Any], list[str]],
) -> None:
    """Refuses texts in which an empty cell of the row became the word None or nan.

    Args:
        name: Name of the task, for messages.
        function: The function of the task that made the texts.
        row: The row.
        index: Index or id of the row, for messages.
        texts: The texts.
        read: Converts what the function returns to texts.

    Raises:
        UserError: The function wrote an empty cell.
    """
    found = written_null(texts, lambda changed: read(function(_Row(changed))), row)
    if found is not None:
        column, word = found
        raise UserError(
            f"task `{name}`, row {index}: the column `{column}` is empty ({word}), and the task would write `{word}`",
            hint="remove such rows from the data, or give the cell a text in the task: "
            f'`row["{column}"] or "…"` for null',
        )


def texts_of(sample: Sample) -> list[str]:
    """All texts of a sample: its prompts, and its targets or choices."""
    if isinstance(sample, Text):
        return [sample.text]
    prompts = [sample.prompt] if isinstance(sample.prompt, str) else sample.prompt
    asked = [prompt if isinstance(prompt, str) else prompt["content"] for prompt in prompts]
    if isinstance(sample, Choose):
        return [*asked, *sample.choices]
    return [*asked, *([sample.target] if isinstance(sample.target, str) else sample.target)]


def _columns(column: str, row: Row) -> str:
    """A hint for a missing column: similar names, and all columns."""
    near = did_you_mean(column, row)
    return near if near.startswith("known") else f"{near} (columns: {', '.join(map(str, row))})"


def cell_of(name: str, column: str | None, row: Row, index: int) -> str | None:
    """The value of a row in the column of its group or cluster, as a text; None without such a column.

    Args:
        name: Name of the task, for messages.
        column: The task's `group` or `cluster`.
        row: The row.
        index: Index of the row, for messages.

    Raises:
        UserError: The row does not have the column, or has no value there.
    """
    if column is None:
        return None
    if column not in row:
        raise UserError(
            f"task `{name}` groups or clusters by the column `{column}`, which its rows do not have",
            hint=_columns(column, row),
        )
    if is_null(row[column]):
        raise UserError(
            f"task `{name}` groups or clusters by the column `{column}`, which is empty in row {index}",
            hint="fill the cell, or remove such rows from the data",
        )
    return str(row[column])


def answer_text(sample: Sample) -> str:
    """The right answer of a sample, as it is written in a solved example."""
    if isinstance(sample, Generate):
        return sample.target if isinstance(sample.target, str) else sample.target[0]
    if isinstance(sample, Choose):
        return sample.choices[right_choice(sample)]
    return sample.text


def right_choice(sample: Choose) -> int:
    """Index of the right choice; of several right choices, the first."""
    return sample.answer if isinstance(sample.answer, int) else sample.answer[0]


def sample_fault(sample: Sample) -> UserError | None:
    """The first problem of a sample, without task and row; None if the sample can be scored."""
    if isinstance(sample, Text):
        return _text_fault(sample)
    return _generate_fault(sample) if isinstance(sample, Generate) else _choose_fault(sample)


def _text_fault(sample: Text) -> UserError | None:
    if not isinstance(sample.text, str):
        return _not_text("`text`", sample.text)
    window, stride = sample.window, sample.stride
    if (window is not None and window < 2) or (stride is not None and not 0 < stride <= (window or stride)):
        return UserError(
            f"`Text` has window={window}, stride={stride}",
            hint="`window` must be at least 2 tokens, and `stride` at least 1 and at most `window`",
        )
    return None


def _generate_fault(sample: Generate) -> UserError | None:
    targets = [sample.target] if isinstance(sample.target, str) else sample.target
    if not isinstance(targets, Sequence) or not targets:
        return _not_text("`target`", sample.target)
    for target in targets:
        if not isinstance(target, str):
            return _not_text("`target`", target)
    if isinstance(sample.stop, str) or not all(isinstance(stop, str) and stop for stop in sample.stop):
        return UserError(
            f"`stop` is {sample.stop!r}, not a tuple of non-empty texts", hint='write for example `stop=("\\n",)`'
        )
    if sample.max_tokens < 1 or sample.samples < 1 or sample.temperature < 0 or not 0 < sample.top_p <= 1:
        return UserError(
            f"max_tokens={sample.max_tokens}, samples={sample.samples}, temperature={sample.temperature},"
            f" top_p={sample.top_p}",
            hint="`max_tokens` and `samples` must be at least 1, `temperature` at least 0, `top_p` above 0 and at most 1",
        )
    if sample.samples > 1 and not sample.temperature:
        return UserError(
            f"`samples` is {sample.samples}, but at temperature 0 all samples are equal",
            hint="set `temperature` above 0, or `samples=1`",
        )
    return _prompt_fault(sample.prompt)


def _choose_fault(sample: Choose) -> UserError | None:
    for choice in sample.choices:
        if not isinstance(choice, str):
            return _not_text("a choice", choice)
    answers = [sample.answer] if isinstance(sample.answer, int) else sample.answer
    indices = range(len(sample.choices))
    if not isinstance(answers, Sequence) or not answers or not all(answer in indices for answer in answers):
        return UserError(
            f"answer {sample.answer!r} with {len(sample.choices)} choices",
            hint="`answer` must be the index of the right choice, from 0",
        )
    if not sample.per_choice_contexts:
        return _prompt_fault(sample.prompt)
    if len(sample.prompt) != len(sample.choices):
        return UserError(
            f"{len(sample.prompt)} contexts for {len(sample.choices)} choices",
            hint="`prompt` must be one text, or one text for each choice",
        )
    return next((_not_text("a context", text) for text in sample.prompt if not isinstance(text, str)), None)


def _prompt_fault(prompt: Any) -> UserError | None:
    if isinstance(prompt, str):
        return None
    if isinstance(prompt, Sequence) and prompt and all(map(_is_message, prompt)):
        return None
    return UserError(
        f"`prompt` is {_shown(prompt)}",
        hint='a prompt must be a text, or messages: `[{"role": "user", "content": "…"}]`',
    )


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _not_text(what: str, value: Any) -> UserError:
    hint = (
        "the row has no value there: remove such rows from the data" if is_null(value) else "convert it with `str(…)`"
    )
    return UserError(f"{what} is {_shown(value)}, not a text", hint=hint)


def _shown(value: Any) -> str:
    return f"the {type(value).__name__} {str(value)[:60]!r}"
