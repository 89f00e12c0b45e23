"""The prompts and targets of a task beside its samples, so that outputs can be read without the task's file and data.

    samples/prompts/<task>.jsonl   one line per sample, once for all variants

Example:
    >>> SamplePrompt("1", "2 + 2 =", "4").to_dict()
    {'id': '1', 'prompt': '2 + 2 =', 'target': '4'}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Choose, Generate, Text
from harness.jobs import Item
from harness.runs.folder import SampleLog
from harness.storage import slug, whole_file

LONGEST = 8000
"""Characters of a prompt or target; of longer ones, such as whole books, the middle is left out."""
GAP = "\n[…]\n"


@dataclass(frozen=True)
class SamplePrompt:
    """The question of a sample, without solved examples, and its answer."""

    id: str
    prompt: str
    target: str | None = None
    """Several right answers are joined by ` | `; None for a text whose likelihood is scored."""
    choices: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    """Indices of the right choices."""

    def to_dict(self) -> dict[str, Any]:
        """The line of the file, without empty fields."""
        return {name: value for name, value in vars(self).items() if value not in (None, ())}

    def output(self, row: Mapping[str, Any]) -> str:
        """Returns a variant's output from its line of a samples file: see `output_of_row`."""
        return output_of_row(row, self.choices)

    def margin(self, row: Mapping[str, Any]) -> float | None:
        """How much more likely the right choice is than the best other one; None without choices."""
        likelihoods = row["loglikelihoods"]
        if not self.choices or len(likelihoods) < 2:
            return None
        wrong = [each for index, each in enumerate(likelihoods) if index not in self.right]
        best = max((likelihoods[index] for index in self.right if index < len(likelihoods)), default=math.nan)
        margin = best - max(wrong, default=math.nan)
        return margin if math.isfinite(margin) else None


def output_of_row(row: Mapping[str, Any], choices: Sequence[str] = ()) -> str:
    """Returns the generated text, the likeliest choice, or the log-likelihood of a text."""
    likelihoods = row["loglikelihoods"]
    if row["outputs"]:
        return str(row["outputs"][0])
    if len(likelihoods) < 2 or any(math.isnan(each) for each in likelihoods):
        return f"log-likelihood {likelihoods[0]:.2f}" if likelihoods else ""
    likeliest = likelihoods.index(max(likelihoods))
    return choices[likeliest] if likeliest < len(choices) else f"choice {likeliest}"


def prompt_of(item: Item, question: str | None = None) -> SamplePrompt:
    """Describes a sample.

    Args:
        item: The sample.
        question: Its prompt without solved examples; None: as the sample has it.
    """
    sample, id = item.sample, item.request.id
    if isinstance(sample, Text):
        return SamplePrompt(id, shortened(sample.text))
    prompt = shortened(question if question is not None else _text(sample.prompt))
    if isinstance(sample, Generate):
        target = sample.target if isinstance(sample.target, str) else " | ".join(sample.target)
        return SamplePrompt(id, prompt, shortened(target))
    assert isinstance(sample, Choose)
    choices = tuple(shortened(str(each)) for each in sample.choices)
    right = (sample.answer,) if isinstance(sample.answer, int) else tuple(sample.answer)
    return SamplePrompt(id, prompt, " | ".join(choices[index] for index in right), choices, right)


def _text(prompt: Any) -> str:
    """A prompt as text: turns of a conversation with their role, and of contexts for each choice the first."""
    if isinstance(prompt, str):
        return prompt
    first = next(iter(prompt), "")
    if isinstance(first, Mapping):
        return "\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in prompt)
    return str(first)


def shortened(text: str, most: int = LONGEST) -> str:
    """Leaves out the middle of a long text: the question is at the end of a prompt, and its subject at the beginning.

    Example:
        >>> shortened("a" * 9 + "b" * 9, most=9).split(GAP)
        ['aa', 'bb']
    """
    if len(text) <= most:
        return text
    half = (most - len(GAP)) // 2
    return text[:half] + GAP + text[-half:]


def write_prompts(folder: Path, task: str, items: Iterable[Item]) -> None:
    """Writes the prompts and targets of a task.

    Raises:
        UserError: The file cannot be written.
    """
    with whole_file(_file(folder, task)) as file:
        for item in items:
            file.write(json.dumps(prompt_of(item).to_dict(), ensure_ascii=False).encode() + b"\n")


def read_prompts(folder: Path, task: str) -> dict[str, SamplePrompt]:
    """Reads the prompts and targets of a task by sample; empty for runs of earlier versions. Broken lines are left out."""
    found = {}
    for row in SampleLog(_file(folder, task)).complete_rows():
        if isinstance(row.get("id"), str) and isinstance(row.get("prompt"), str):
            target, choices, right = row.get("target"), row.get("choices", []), row.get("right", [])
            found[row["id"]] = SamplePrompt(
                row["id"],
                row["prompt"],
                target if isinstance(target, str) else None,
                tuple(map(str, choices)) if isinstance(choices, list) else (),
                tuple(each for each in right if isinstance(each, int)) if isinstance(right, list) else (),
            )
    return found


def _file(folder: Path, task: str) -> Path:
    return folder / "samples" / "prompts" / f"{slug(task)}.jsonl"
