"""Writes a `SampleDiff` as text for a terminal or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.comparison.sample_diff import ChangedSample, SampleDiff
from harness.errors import printable
from harness.leaderboards.markdown import escaped
from harness.report import numbers
from harness.report.numbers import Scale

LONGEST = 600
"""A longer prompt or answer is shown by its end or its start, this many characters."""


def as_text(diff: SampleDiff, most: int) -> str:
    """Writes counts, groups and the first samples for a terminal; text from models cannot move the cursor.

    Args:
        diff: The comparison.
        most: Number of samples to show.
    """
    lines = [_headline(diff), *(f"  {line}" for line in _counts(diff))]
    lines += [f"  note: {note}" for note in diff.notes]
    for sample in diff.samples[:most]:
        lines += ["", _title(sample)]
        for label, text in _parts(diff, sample):
            first, *rest = text.splitlines() or [""]
            lines += [f"  {label:<8} {first}", *(f"  {'':<8} {line}" for line in rest)]
    return "\n".join(map(printable, [*lines, *_left(diff, most)]))


def as_markdown(diff: SampleDiff, most: int) -> str:
    """Writes the same as Markdown; texts are code blocks, which no text can end.

    Args:
        diff: The comparison.
        most: Number of samples to show.
    """
    lines = [f"## {escaped(_headline(diff))}", "", *(f"- {escaped(line)}" for line in _counts(diff))]
    lines += [f"- note: {escaped(note)}" for note in diff.notes]
    for sample in diff.samples[:most]:
        lines += ["", f"### {escaped(_title(sample))}"]
        for label, text in _parts(diff, sample):
            body = text.splitlines() or [""]
            fence = "`" * (1 + max(3, *(len(run) for line in body for run in re.findall("`+", line)), 0))
            lines += ["", f"{escaped(label)}:", "", f"{fence}text", *body, fence]
    return "\n".join(map(printable, [*lines, *_left(diff, most)]))


def _headline(diff: SampleDiff) -> str:
    scale = Scale.of(diff.metric, [diff.value])
    shown = ""
    if diff.value is not None and diff.low is not None and diff.high is not None:
        shown = (
            f"; {scale.difference(diff.value, diff.low, diff.high)} (95 %), p {numbers.probability(diff.p)} unadjusted"
        )
    equal = diff.n - diff.won - diff.lost
    return f"{diff.task} {diff.metric}: {diff.a} against {diff.b}: {diff.won} won, {diff.lost} lost, {equal} equal of {diff.n}{shown}"


def _counts(diff: SampleDiff) -> list[str]:
    return [
        f"{each.name}: {each.won} won, {each.lost} lost of {each.n}" for each in diff.groups if each.won or each.lost
    ]


def _title(sample: ChangedSample) -> str:
    group = f" ({sample.group})" if sample.group is not None else ""
    margin = f", margin {sample.margin:+.2f} nats" if sample.margin is not None else ""
    return f"{sample.outcome} {sample.id}{group}: {sample.a.score:g} against {sample.b.score:g}{margin}"


def _parts(diff: SampleDiff, sample: ChangedSample) -> Iterator[tuple[str, str]]:
    if sample.prompt is not None:
        cut = sample.prompt if len(sample.prompt) <= LONGEST else "… " + sample.prompt[-LONGEST:]
        yield "prompt", cut
    if sample.target is not None:
        yield "target", _start(sample.target)
    yield diff.a, _start(sample.a.text)
    yield diff.b, _start(sample.b.text)


def _start(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _left(diff: SampleDiff, most: int) -> list[str]:
    left = len(diff.samples) - most
    return ["", f"{numbers.counted(left, 'further sample')}: `--show {len(diff.samples)}`"] if left > 0 else []
