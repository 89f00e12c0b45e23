"""The notes under the tables of a run: the legend, what the differences compare, the run's own notes, warnings."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report import numbers
from harness.report.costs import busy_notes, meanings
from harness.report.scores import has_ranks, headline_delta, scale_of, titles
from harness.results import Overlap, Run, Variant


def footnotes(run: Run) -> list[str]:
    """Lists everything that must be read with the tables."""
    return [*_missing(run), *_legend(run), *(f"note: {numbers.one_line(note)}" for note in run.notes), *_warnings(run)]


def _missing(run: Run) -> Iterator[str]:
    """Says what an unfinished run lacks, and how to continue it if its process is gone."""
    lacking = {variant.name: lacks for variant in run.variants if (lacks := _lacks(run, variant))}
    if not lacking:
        return
    yield "not finished: " + "; ".join(f"{name} has {numbers.listing(lacks)}" for name, lacks in lacking.items())
    if any(variant.status == "interrupted" for variant in run.variants):
        yield "the run was interrupted, and finished work is kept" + (
            f"; to continue: {run.command}" if run.command.startswith("harness ") else "; start it again to continue"
        )


def _lacks(run: Run, variant: Variant) -> list[str]:
    if variant.status in ("done", "failed"):
        return []
    scored = {score.task for score in variant.scores}
    unscored = [task.name for task in run.tasks if task.name not in scored]
    return [
        *(["no training run"] if variant.method and variant.train is None else []),
        *([f"no score on {numbers.listing(unscored)}"] if unscored else []),
        *(["no timing"] if variant.inference is None else []),
    ]


def _legend(run: Run) -> Iterator[str]:
    deltas = [delta for variant in run.variants for task in run.tasks if (delta := headline_delta(variant, task))]
    over_seeds = [each.delta for each in run.replicated if each.delta]
    if deltas or over_seeds:
        marks = {delta.mark for delta in (*deltas, *over_seeds)} | {"better", "worse", "undecided"}
        yield "  ".join(f"{mark} {numbers.MARK_WORDS[name]}" for name, mark in numbers.MARKS.items() if name in marks)
    if deltas:
        count = sum(delta.p_holm is not None for delta in deltas) if run.tests is None else run.tests
        family = "" if run.tests is None else ": all pairs of variants on all tasks"
        yield (
            "± is half the width of the 95 % interval of the paired difference, unadjusted; uneven intervals are shown by their"
            f" ends; ▲ and ▼ need a Holm-adjusted p < .05 over {numbers.counted(count, 'test')}{family}"
        )
    yield from meanings(run)
    if has_ranks(run):
        yield (
            "rank: from 1 + the number of variants shown to be better, to the number of variants less those shown to be worse"
        )
    if run.replicated:
        yield (
            f"over {'folds' if run.config.get('folds') else 'seeds'}: mean ± standard deviation; the interval of the"
            " difference covers samples and training runs, so this table compares methods; the tables above compare these"
            " trained models"
        )
        yield from dict.fromkeys(f"? over seeds: {delta.untestable}" for delta in over_seeds if delta.untestable)
    elif deltas and any(variant.train for variant in run.variants):
        yield "one training seed: the differences compare these trained models; use `--seeds 3` to compare methods"


def _warnings(run: Run) -> Iterator[str]:
    yield from busy_notes(run)
    yield from (_memorized(overlap) for overlap in run.overlaps if overlap.contained)
    undetected: dict[int, list[str]] = {}
    for task in run.tasks:
        deltas = [headline_delta(variant, task) for variant in run.variants]
        if task.smallest_difference is None or not any(delta and delta.verdict == "undecided" for delta in deltas):
            continue
        scale = scale_of(run, task.name, task.headline)
        about = f"{scale.value(task.smallest_difference)} {scale.unit}".strip()
        undetected.setdefault(task.n, []).append(f"{about} on {titles(run)[task.name]}")
    level = "" if run.tests is None else f" over {numbers.counted(run.tests, 'test')}"
    for n, differences in undetected.items():
        yield (
            f"warning: {n} samples show a true difference of {numbers.listing(differences)} in 80 % of cases{level};"
            " a smaller one may be missed"
        )
    for variant in run.variants:
        if variant.train is not None and not variant.train.curve.startswith(("converged", "reward")):
            yield f"warning: {variant.name}: training loss {numbers.one_line(variant.train.curve)}"


def _memorized(overlap: Overlap) -> str:
    """Warns of samples that are in the training data, with an example."""
    first = overlap.examples[0]
    text = first.text if len(first.text) <= 120 else first.text[:119] + "…"
    return numbers.one_line(
        f"warning: {overlap.contained:,} of {overlap.n:,} samples of {overlap.task} ({overlap.contained / overlap.n:.0%})"
        f" are in the training data ({overlap.train}), so their scores may show memorization; for example sample {first.id},"
        f" in row {first.train_row}: “{text}”"
    )
