"""Finds suspicious samples that can be scored but look wrong: doubled spaces, cut answers, missing values.

A finding is serious if the right answer cannot be given or cannot be distinguished from a wrong answer; other findings are
warnings.

Example:
    >>> list(_of_choices(Choose("2 + 2 =", ["4", "4"], answer=0)))
    [('right twice', 'the right choice is also among the wrong ones: `4`', True)]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.api import Choose, Generate, Sample, Text
from harness.jobs import Item
from harness.metrics.cjk import has_cjk

_MISSING = frozenset({"nan", "<na>", "nat"})
"""The texts, in lower case, into which libraries convert a missing value of a table."""
_CHARACTERS_PER_TOKEN = 4.0
"""A rough mean for English text with common tokenizers."""
_CJK_CHARACTERS_PER_TOKEN = 1.5
"""A rough mean for Chinese and Japanese text."""


@dataclass(frozen=True)
class Finding:
    """One kind of suspicious sample, with the first example."""

    message: str
    is_serious: bool


def lint(items: Sequence[Item], *, delimiter: str, judges_code: bool = False) -> list[Finding]:
    """Checks all samples; each kind of finding is reported once, with the number of further samples.

    Args:
        items: The rendered samples of a task.
        delimiter: Text between a prompt and its answer.
        judges_code: Whether a metric runs the answers as programs: then an answer cut at a stop string may still be right,
            and the metric decides.
    """
    kinds: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for item in items:
        for kind, message, is_serious in _of_sample(item.sample, delimiter, judges_code):
            kinds[kind, is_serious].append(f"sample {item.request.id}: {message}")
    # if no sample has an answer, none is missing: the task has no reference answers (instruction following)
    if len(kinds["empty target", True]) == len(items):
        del kinds["empty target", True]
    found = [Finding(_and_more(messages), is_serious) for (_, is_serious), messages in kinds.items() if messages]
    return sorted([*found, *_duplicates(items)], key=lambda finding: not finding.is_serious)


def _and_more(messages: Sequence[str]) -> str:
    return messages[0] + (f" (and {len(messages) - 1} more)" if len(messages) > 1 else "")


def _of_sample(sample: Sample, delimiter: str, judges_code: bool) -> Iterator[tuple[str, str, bool]]:
    """Kind, message and seriousness of each finding in one sample."""
    if isinstance(sample, Text):
        if not sample.text.strip():
            yield "empty text", "the text is empty", True
        return
    for prompt in _prompts(sample):
        if prompt[-1:].isspace() and delimiter[:1].isspace():
            yield "space", f"the prompt ends in white space, and the delimiter {delimiter!r} begins with more", False
            break
        if prompt[-1:] == " " and not delimiter and isinstance(sample, Generate):
            yield "space", "the prompt ends in a space, but most tokenizers join a space to the word after it", False
            break
    if isinstance(sample, Choose):
        yield from _of_choices(sample)
        answers: Sequence[str] = sample.choices
    else:
        answers = [sample.target] if isinstance(sample.target, str) else sample.target
        yield from _of_targets(sample, answers, judges_code)
    what = "a choice" if isinstance(sample, Choose) else "the target"
    for answer in answers:
        if answer[:1].isspace() and delimiter[-1:].isspace():
            yield "delimiter", f"{what} begins with white space, and the delimiter {delimiter!r} ends in more", False
            break
    for answer in answers:
        if answer.strip().lower() in _MISSING:
            yield "missing", f"{what} is `{answer}`: is the value missing in the data?", True
            break


def _of_choices(sample: Choose) -> Iterator[tuple[str, str, bool]]:
    if len(sample.choices) < 2:
        yield "one choice", "there is only one choice: every model is right", True
    right = {sample.answer} if isinstance(sample.answer, int) else set(sample.answer)
    if not sample.per_choice_contexts:
        wrong = [choice for index, choice in enumerate(sample.choices) if index not in right]
        for choice in {sample.choices[index] for index in right} & set(wrong):
            yield "right twice", f"the right choice is also among the wrong ones: `{choice}`", True
        if len(set(wrong)) < len(wrong):
            twice = next(choice for choice in wrong if wrong.count(choice) > 1)
            yield "wrong twice", f"a wrong choice occurs twice: `{twice}`", False


def _of_targets(sample: Generate, targets: Sequence[str], judges_code: bool) -> Iterator[tuple[str, str, bool]]:
    if not any(target.strip() for target in targets):
        yield "empty target", "the target is empty", True
    for stop in sample.stop:
        heads = [target.partition(stop) for target in targets]
        if all(found for _, found, _ in heads):
            loses = any(tail.strip() for _, _, tail in heads) and not judges_code
            yield "stop", f"the stop string {stop!r} would cut the target to {heads[0][0][-40:]!r}", loses
            break
    needed = min(map(_tokens, targets))
    if needed > sample.max_tokens:
        message = f"the target has about {needed} tokens, and max_tokens={sample.max_tokens} cuts it"
        yield "max_tokens", message, needed > 3 * sample.max_tokens


def _tokens(text: str) -> int:
    """A rough estimate of the number of tokens of a text."""
    wide = sum(map(has_cjk, text)) if has_cjk(text) else 0
    return int(wide / _CJK_CHARACTERS_PER_TOKEN + (len(text) - wide) / _CHARACTERS_PER_TOKEN)


def _prompts(sample: Generate | Choose) -> list[str]:
    if isinstance(sample.prompt, str):
        return [sample.prompt]
    last = sample.prompt if isinstance(sample, Choose) and sample.per_choice_contexts else sample.prompt[-1:]
    return [each if isinstance(each, str) else each["content"] for each in last]


def _duplicates(items: Iterable[Item]) -> Iterator[Finding]:
    """Samples of one group with the same question: one observation is counted twice."""
    first: dict[Hashable, str] = {}
    duplicates = []
    for item in items:
        sample, id = item.sample, item.request.id
        asked = sample.text if isinstance(sample, Text) else repr(sample.prompt)
        key = (item.group, asked, tuple(sample.choices) if isinstance(sample, Choose) else ())
        if first.setdefault(key, id) != id:
            duplicates.append(f"samples {first[key]} and {id} ask the same question")
    if duplicates:
        yield Finding(_and_more(duplicates), False)
