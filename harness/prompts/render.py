"""Renders the prompts of a task, for scoring and for training.

Everything here is text. A prompt is the description, then the solved examples, then the question; with a chat template,
the examples become turns of a conversation. The same function renders prompts for scoring and for training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.api import Choose, Generate, Message, Row, Sample, Task, Text
from harness.data.sources import rows as load_rows
from harness.errors import UserError, did_you_mean
from harness.jobs import Example, Item, Request
from harness.prompts.chat import ChatTemplate, system_in_user_turn
from harness.prompts.learned import learned, learned_after
from harness.prompts.row_notes import RowNotes
from harness.prompts.samples import answer_text, call_on, cell_of, refuse_null, right_choice, sample_of
from harness.prompts.shots import Shots
from harness.prompts.thoughts import ends_in_thought, thought_state

_Question = str | Sequence[Message]
_Solved = Sequence[tuple[_Question, str]]


@dataclass(frozen=True)
class Prompting:
    """Settings for prompts of all tasks; part of a variant."""

    shots: int | None = None
    """Number of solved examples; None: as the task says."""
    system: str | None = None
    """System prompt."""
    template: ChatTemplate | None = None
    """Chat template; None: prompts are plain text."""
    think: str | None = None
    """The variant's key `think`."""
    thought_tokens: int = 0
    """Tokens of a thought, in addition to those of the answer."""
    shared_shots: bool = False
    """Whether all samples have the same solved examples, whatever the task's `shots_order`."""

    def shares_shots_of(self, task: Task) -> bool:
        """Whether samples of a task share solved examples that the task itself would draw for each of them."""
        return self.shared_shots and self.count_of(task) > 0 and task.shots_order != "first"

    def count_of(self, task: Task) -> int:
        """Number of solved examples before each sample of a task."""
        return task.shots if self.shots is None else self.shots

    def of(self, sample: Sample) -> Prompting:
        """The prompting of a sample: choices are scored after a closed thought.

        Raises:
            UserError: The chat template cannot close it.
        """
        if self.template is None or not isinstance(sample, Choose):
            return self
        return replace(self, template=self.template.for_choices)


def render(
    name: str,
    task: Task,
    prompting: Prompting = Prompting(),
    *,
    groups: Sequence[str] = (),
    limit: int | None = None,
) -> list[Item]:
    """Renders the items of a task, in the order of its data.

    Args:
        name: Name of the task, for messages.
        task: The task.
        prompting: Shots, system prompt and chat template.
        groups: The groups to render; empty: all.
        limit: Number of samples, spread evenly over the groups, first rows within a group; None: all.

    Raises:
        UserError: The task has no rows, a requested group does not exist, or a row lacks a column that the task uses.
    """
    everything = list(enumerate(load_rows(task.data)))
    if not everything:
        raise UserError(f"task `{name}` has no rows", hint="check the split or file that it reads")
    data = _in_groups(name, task, everything, groups) if groups else everything
    if limit is not None:
        data = _spread(data, limit, lambda index, row: cell_of(name, task.group, row, index) or "")
    drawn = replace(task, shots_order="first") if prompting.shares_shots_of(task) else task
    shots = Shots(name, drawn, prompting.count_of(task), everything)
    items = []
    for index, row in data:
        sample = sample_of(name, task, row, index)
        id = str(index if sample.id is None else sample.id)
        request = _request(name, sample, id, task, row, shots.before(index, row, sample), prompting)
        group, cluster = (cell_of(name, column, row, index) for column in (task.group, task.cluster))
        items.append(Item(request, sample, group, cluster))
    _check_ids(name, items)
    return items


def render_examples(name: str, task: Task, prompting: Prompting = Prompting()) -> list[Example]:
    """Renders the training examples of a task: `render_rows` of its train split.

    Raises:
        UserError: The task has no train split, the split has no rows, or a row lacks a column that the task uses.
    """
    return render_rows(name, task, train_rows(name, task), prompting)


def train_rows(name: str, task: Task) -> Sequence[Row]:
    """The rows of a task's train split.

    Raises:
        UserError: The task has no train split, or the split has no rows.
    """
    if task.train is None:
        raise UserError(f"task `{name}` has no train split", hint="give training data with `--train`")
    rows = load_rows(task.train)
    if not rows:
        raise UserError(f"the train split of task `{name}` has no rows", hint="give training data with `--train`")
    return rows


def render_rows(
    name: str, task: Task, rows: Sequence[Row], prompting: Prompting = Prompting(), notes: RowNotes | None = None
) -> list[Example]:
    """Renders rows of a task as training examples, one for each row.

    Each is the rendered prompt (without solved examples), the delimiter, the answer, and the first stop string or EOS. With a
    chat template, the answer is a turn, and ends as the template ends it.

    Args:
        name: Name of the task, for messages.
        task: The task.
        rows: Rows as in its train split.
        prompting: System prompt and chat template.
        notes: Counts what the chat template does to thoughts.

    Raises:
        UserError: A row lacks a column that the task uses.
    """
    examples, notes = [], notes or RowNotes()
    for index, row in enumerate(rows):
        sample = sample_of(name, task, row, index)
        if isinstance(sample, Text):
            examples.append(Example("", sample.text))
            continue
        try:
            examples.append(_example(sample, _description(name, task, row, str(index)), task, prompting, notes))
        except UserError as error:
            raise UserError(f"training data of task `{name}`, row {index}: {error.message}", error.hint) from error
    return examples


def _example(sample: Generate | Choose, description: str, task: Task, prompting: Prompting, notes: RowNotes) -> Example:
    prompting = prompting.of(sample)
    question, template = _question(sample, None), prompting.template
    context = _context(description, [], question, task, prompting)
    answer = _delimiter(task, sample, prompting, context) + answer_text(sample)
    if template is not None and template.turn_end:
        messages = _messages(description, [], question, prompting)
        if messages[-1]["role"] == "assistant":
            found = learned_after(template, messages, answer)
        else:
            found = learned(template, [*messages, {"role": "assistant", "content": answer}])
        notes.thoughts[found.thought] += 1
        return Example(found.prompt, found.text, turn_end=template.turn_end)
    stop = sample.stop[0] if isinstance(sample, Generate) and sample.stop else ""
    return Example(context, answer + stop, append_eos=not stop, turn_end=None if template is None else "")


def _request(
    name: str, sample: Sample, id: str, task: Task, row: Row, shots: list[Sample], prompting: Prompting
) -> Request:
    if isinstance(sample, Text):
        return Request(id, "text", ("",), (sample.text,), window=sample.window, stride=sample.stride)
    description = _description(name, task, row, id)
    try:
        prompting = prompting.of(sample)
    except UserError as error:
        raise UserError(f"task `{name}`: {error.message}", error.hint) from error
    template = prompting.template

    def context(choice: int | None) -> str:
        solved = [(_question(shot, None), answer_text(shot)) for shot in shots]
        return _context(description, solved, _question(sample, choice), task, prompting)

    if isinstance(sample, Generate):
        prompt, begun = context(None), _begun(sample)
        thought = (template and template.thought) or Request.thought
        opened = ends_in_thought(prompt, thought) if begun is None else thought_state(begun, thought) == "open"
        return Request(
            id,
            "generate",
            (prompt,),
            stop=tuple(sample.stop),
            max_tokens=sample.max_tokens,
            samples=sample.samples,
            temperature=sample.temperature,
            top_p=sample.top_p,
            templated=template is not None,
            thought=thought,
            in_thought=template is not None and opened,
            thought_tokens=prompting.thought_tokens,
        )
    contexts = [context(i) for i in range(len(sample.choices))] if sample.per_choice_contexts else [context(None)]
    delimiter = _delimiter(task, sample, prompting, contexts[0])
    choices = tuple(delimiter + choice for choice in sample.choices)
    if "" in choices:
        raise UserError(
            f"task `{name}`, row {id}: choice {choices.index('')} is an empty text, whose likelihood is always 1",
            hint="leave out such rows or choices, or write a text in its place",
        )
    return Request(id, "choose", tuple(contexts), choices, templated=template is not None)


def _description(name: str, task: Task, row: Row, id: str) -> str:
    """The description of a task for a row."""
    if isinstance(task.description, str):
        return task.description
    described = call_on(name, task.description, row, id)
    if not isinstance(described, str):
        raise UserError(
            f"task `{name}`: `description` returned a {type(described).__name__} for row {id}, not a text",
            hint="return a text from the function `description`",
        )
    refuse_null(name, task.description, row, id, [described], lambda made: [made])
    return described


def _context(description: str, solved: _Solved, question: _Question, task: Task, prompting: Prompting) -> str:
    """The prompt as text."""
    if prompting.template is not None:
        return prompting.template.render(_messages(description, solved, question, prompting))
    system = prompting.system + "\n\n" if prompting.system else ""
    texts = [_flat(asked) + task.delimiter + answer + task.shot_separator for asked, answer in solved]
    return system + description + "".join(texts) + _flat(question)


def _delimiter(task: Task, sample: Generate | Choose, prompting: Prompting, context: str) -> str:
    """The text between prompt and answer; with a chat template, only needed after the assistant's own words."""
    if prompting.template is None:
        return task.delimiter
    return task.delimiter if (_begun(sample) or "").strip() and not context[-1].isspace() else ""


def _begun(sample: Generate | Choose) -> str | None:
    """The beginning of the answer, if the prompt has one."""
    last = None if isinstance(sample.prompt, str) else sample.prompt[-1]
    return last["content"] if isinstance(last, Mapping) and last["role"] == "assistant" else None


def _question(sample: Sample, choice: int | None) -> _Question:
    if isinstance(sample, Text):
        raise UserError("a `Text` sample cannot be a solved example", hint="remove `shots` from the task")
    if isinstance(sample, Choose) and sample.per_choice_contexts:
        prompt = sample.prompt[right_choice(sample) if choice is None else choice]
        assert isinstance(prompt, str)
        return prompt
    return sample.prompt  # type: ignore[return-value]


def _messages(description: str, solved: _Solved, question: _Question, prompting: Prompting) -> list[Message]:
    """The prompt as turns of a conversation."""
    messages: list[Message] = []
    system = "\n\n".join(part for part in (prompting.system, description) if part)
    if system:
        messages.append({"role": "system", "content": system})
    for asked, answer in solved:
        messages += _turns(asked)
        messages.append({"role": "assistant", "content": answer})
    messages += _turns(question)
    assert prompting.template is not None
    return messages if prompting.template.has_system_turn else system_in_user_turn(messages)


def _turns(prompt: _Question) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _flat(prompt: _Question) -> str:
    """Messages as one text; if the last message begins the answer, it follows the question without a blank line."""
    if isinstance(prompt, str):
        return prompt
    *before, last = [message["content"] for message in prompt]
    if not before or prompt[-1]["role"] != "assistant":
        return "\n\n".join([*before, last])
    asked = "\n\n".join(before)
    apart = asked[-1:].isspace() or last[:1].isspace()
    return asked + ("" if apart else " ") + last


def _in_groups(name: str, task: Task, data: list[tuple[int, Row]], groups: Sequence[str]) -> list[tuple[int, Row]]:
    if task.group is None:
        raise UserError(f"task `{name}` has no groups", hint=f"write `{name}` without `:{'+'.join(groups)}`")
    known = {cell_of(name, task.group, row, index) or "" for index, row in data}
    for group in groups:
        if group not in known:
            raise UserError(f"task `{name}` has no group `{group}`", hint=did_you_mean(group, known))
    return [(index, row) for index, row in data if cell_of(name, task.group, row, index) in groups]


def _spread(data: list[tuple[int, Row]], limit: int, group_of: Callable[[int, Row], str]) -> list[tuple[int, Row]]:
    """The first rows of every group, as evenly as the groups' sizes allow, in the order of the data."""
    groups: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for index, row in data:
        groups[group_of(index, row)].append((index, row))
    quota = dict.fromkeys(groups, 0)
    left = min(limit, len(data))
    while left > 0:
        for group, members in groups.items():
            if left and quota[group] < len(members):
                quota[group] += 1
                left -= 1
    chosen = [entry for group, members in groups.items() for entry in members[: quota[group]]]
    return sorted(chosen, key=lambda entry: entry[0])


def _check_ids(name: str, items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.request.id in seen:
            raise UserError(
                f"task `{name}` has two samples with the id `{item.request.id}`",
                hint="give each sample its own `id`, or leave `id` out to number them",
            )
        seen.add(item.request.id)
