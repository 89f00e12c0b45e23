"""The samples of a run for the page: each prompt once, with the outputs of the variants that won or lost on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from harness.leaderboards.sections import PageColumn, RunRows
from harness.report.scores import titles
from harness.results import Run, ShownPrompt, ShownSamples

_MOST_COUNTED = 8
"""Variants up to which all counts are written out."""


@dataclass(frozen=True)
class VariantOutput:
    """The output of one variant."""

    variant: str
    kind: str
    """`won` or `lost`."""
    text: str
    score: str


@dataclass(frozen=True)
class BrowsedPrompt:
    """A sample with its outputs."""

    task: int
    """Key of the column."""
    title: str
    id: str
    prompt: str
    target: str | None
    output: str
    """Of the baseline."""
    score: str
    outputs: tuple[VariantOutput, ...]

    @property
    def size(self) -> int:
        """Characters."""
        parts = (self.prompt, self.target or "", self.output, *(each.text for each in self.outputs))
        return sum(map(len, parts)) + 400


@dataclass(frozen=True)
class SampleBrowser:
    """The samples of a page, and how they were drawn."""

    prompts: tuple[BrowsedPrompt, ...]
    words: str
    counts: tuple[str, ...]
    """By task: samples won, lost and scored alike."""
    variants: tuple[str, ...]
    tasks: tuple[tuple[int, str], ...]

    @property
    def count(self) -> int:
        """Outputs of variants."""
        return sum(len(each.outputs) for each in self.prompts)


def sample_browser(rows: RunRows, columns: Sequence[PageColumn], room: int) -> SampleBrowser | None:
    """Chooses samples of a run's document, one of each task in turn, as far as they fit; None without samples.

    Args:
        rows: The run.
        columns: The columns of the page.
        room: Characters of all samples.
    """
    run = rows.run
    keys = {(column.task, column.metric): column.key for column in columns}
    by_task = {task.name: keys[task.name, task.headline] for task in run.tasks}
    known = [shown for shown in run.samples_shown if shown.task in by_task]
    queues = [_prompts(run, shown, by_task[shown.task]) for shown in known]
    chosen, used = [], 0
    total = sum(map(len, queues))
    for each in filter(None, chain.from_iterable(zip_longest(*queues))):
        if used + each.size <= room:
            chosen.append(each)
            used += each.size
    if not chosen:
        return None
    chosen.sort(key=lambda each: each.task)
    left = f" {total - len(chosen)} of {total} are left out to keep the page small." if len(chosen) < total else ""
    names = {out.variant for each in chosen for out in each.outputs}
    compared = max(len(shown.variants) for shown in known)
    return SampleBrowser(
        prompts=tuple(chosen),
        words="A few samples of each task on which a variant and the baseline have different scores, drawn at random with the"
        f" run's seed; long texts are cut in the middle. A corpus metric scores each sample alone here.{left}",
        counts=tuple(_counts(run, shown) for shown in known) if compared <= _MOST_COUNTED else (),
        variants=tuple(variant.name for variant in run.variants if variant.name in names),
        tasks=tuple({each.task: each.title for each in chosen}.items()),
    )


def _prompts(run: Run, shown: ShownSamples, key: int) -> list[BrowsedPrompt]:
    outputs: dict[str, list[VariantOutput]] = {}
    for mine in shown.variants:
        for each in mine.outputs:
            found = VariantOutput(mine.variant, each.kind, each.output, f"{each.score:.4g}")
            outputs.setdefault(each.id, []).append(found)
    return [_browsed(run, shown, each, key, outputs[each.id]) for each in shown.prompts if each.id in outputs]


def _browsed(
    run: Run, shown: ShownSamples, prompt: ShownPrompt, key: int, outputs: Sequence[VariantOutput]
) -> BrowsedPrompt:
    return BrowsedPrompt(
        task=key,
        title=titles(run)[shown.task],
        id=prompt.id,
        prompt=prompt.prompt,
        target=prompt.target,
        output=prompt.output,
        score=f"{prompt.score:.4g}",
        outputs=tuple(outputs),
    )


def _counts(run: Run, shown: ShownSamples) -> str:
    parts = (f"{mine.variant} {mine.won} won, {mine.lost} lost, {mine.tied} alike" for mine in shown.variants)
    return f"{titles(run)[shown.task]}: {'; '.join(parts)}"
