"""What can be wrong with a sample that an author's function made: said before a model is loaded.

Example:
    >>> sample_fault(Choose("2 + 2 =", ["3", "4"], answer=2)).message
    'answer 2 with 2 choices'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.api import Choose, Generate, Sample, Text
from harness.errors import UserError


def sample_fault(sample: Sample) -> UserError | None:
    """The first thing that is wrong with a sample, without its place; None when it can be scored."""
    if isinstance(sample, Text):
        return None if isinstance(sample.text, str) else _not_text("`text`", sample.text)
    return _generate_fault(sample) if isinstance(sample, Generate) else _choose_fault(sample)


def _generate_fault(sample: Generate) -> UserError | None:
    targets = [sample.target] if isinstance(sample.target, str) else sample.target
    if not isinstance(targets, Sequence) or not targets:
        return _not_text("`target`", sample.target)
    for target in targets:
        if not isinstance(target, str):
            return _not_text("`target`", target)
    if isinstance(sample.stop, str) or not all(isinstance(stop, str) and stop for stop in sample.stop):
        return UserError(f"`stop` is {sample.stop!r}, not a tuple of texts", hint='for example `stop=("\\n",)`')
    if sample.max_tokens < 1 or sample.samples < 1 or sample.temperature < 0:
        return UserError(
            f"max_tokens={sample.max_tokens}, samples={sample.samples}, temperature={sample.temperature}",
            hint="the first two are at least 1, the temperature at least 0",
        )
    if sample.samples > 1 and not sample.temperature:
        return UserError(
            f"{sample.samples} samples at temperature 0 are all the same",
            hint="give a `temperature`, or ask for one sample",
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
            hint="`answer` is the index of the right choice, from 0",
        )
    if not sample.per_choice_contexts:
        return _prompt_fault(sample.prompt)
    if len(sample.prompt) != len(sample.choices):
        return UserError(
            f"{len(sample.prompt)} contexts for {len(sample.choices)} choices",
            hint="`prompt` is one text, or one for each choice",
        )
    return next((_not_text("a context", text) for text in sample.prompt if not isinstance(text, str)), None)


def _prompt_fault(prompt: Any) -> UserError | None:
    if isinstance(prompt, str):
        return None
    if isinstance(prompt, Sequence) and prompt and all(map(_is_message, prompt)):
        return None
    return UserError(
        f"`prompt` is {_shown(prompt)}", hint='a prompt is a text, or messages: `[{"role": "user", "content": "…"}]`'
    )


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _not_text(what: str, value: Any) -> UserError:
    return UserError(f"{what} is {_shown(value)}, not a text", hint="a number is written `str(…)`")


def _shown(value: Any) -> str:
    return f"the {type(value).__name__} {str(value)[:60]!r}"
