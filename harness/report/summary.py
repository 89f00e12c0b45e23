"""What a run says in words: verdicts, ranks, cost ratios, Pareto fronts, and what a reader must not conclude.

Example:
    >>> for subject, text in summary(run):  # doctest: +SKIP
    ...     print(subject, "·", text)
    lora · better than base on gsm8k, no difference shown on mmlu, worse on wikitext (forgetting)
    qlora vs lora · 0.61 × the peak GPU memory in training, 1.43 × the training time; gsm8k: no difference shown (-1.6 ±2.4)
    Pareto front (gsm8k, peak GPU) · lora, qlora
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report import numbers
from harness.results import Run

if TYPE_CHECKING:
    pass

from typing import NamedTuple

from harness.report.costs import Measure, measures
from harness.results import Delta, Overlap, Score, TaskInfo, Variant, Verdict, verdict_of
from harness.stats import ranking

RANKED_FROM = 4
"""With fewer variants than this, ranks say nothing that the verdicts do not."""


class Finding(NamedTuple):
    """One sentence of the summary: who it is about, and what holds."""

    subject: str
    text: str


class Difference(NamedTuple):
    """A paired difference between two variants on one headline, with its verdict."""

    value: float
    low: float
    high: float
    verdict: Verdict


def score_of(variant: Variant, task: str, metric: str) -> Score | None:
    """The score of a variant on one metric of a task, where there is one."""
    return next((score for score in variant.scores if (score.task, score.metric) == (task, metric)), None)


def scale_of(run: Run, task: str, metric: str) -> numbers.Scale:
    """How this metric's values are shown, decided over all variants of the run."""
    scores = (score_of(variant, task, metric) for variant in run.variants)
    return numbers.Scale.of(metric, [score.value for score in scores if score is not None])


def higher_is_better(task: TaskInfo, metric: str) -> bool:
    """The direction of a task's metric."""
    return next(info.higher_is_better for info in task.metrics if info.name == metric)


def difference(run: Run, task: TaskInfo, a: str, b: str) -> Difference | None:
    """The paired difference a − b on a task's headline, whichever way round the run recorded it."""
    for comparison in run.comparisons:
        if (comparison.task, comparison.metric) != (task.name, task.headline) or {comparison.a, comparison.b} != {a, b}:
            continue
        value, low, high = comparison.value, comparison.low, comparison.high
        if comparison.a != a:
            value, low, high = -value, -high, -low
        p = comparison.p if comparison.p_holm is None else comparison.p_holm
        verdict = verdict_of(value, p, higher_is_better(task, task.headline))
        return Difference(value, low, high, verdict)
    return None


def leading(run: Run) -> list[TaskInfo]:
    """The task that stands for quality where there is room for one.

    Of those trained on, the first where a variant was shown to differ; else the first of them; else the first task.

    Returns:
        One task, or none when the run has none.
    """
    trained_on = [task for task in run.tasks if task.trained_on]
    telling = {
        score.task
        for variant in run.variants
        for score in variant.scores
        if score.delta is not None and score.delta.p_holm is not None and score.delta.verdict != "undecided"
    }
    return [task for task in trained_on if task.name in telling][:1] or trained_on[:1] or list(run.tasks[:1])


def ranks(run: Run, task: TaskInfo) -> dict[str, int]:
    """Rank of every scored variant on a task's headline: 1 + the number of variants shown better, so ties share it.

    Returns:
        Variant name to rank; empty with fewer than `RANKED_FROM` scored variants.
    """
    scored = [variant.name for variant in run.variants if score_of(variant, task.name, task.headline)]
    if len(scored) < RANKED_FROM:
        return {}

    def better(a: str, b: str) -> bool:
        found = difference(run, task, a, b)
        return found is not None and found.verdict == "better"

    return ranking.ranks(scored, better)


def summary(run: Run) -> list[Finding]:
    """The findings of a run as sentences: each variant's verdicts, trained variants beside each other, Pareto fronts."""
    found = [_verdicts(run, v) for v in run.variants if v.name != run.baseline or v.status == "failed"]
    trained = [variant for variant in run.variants if variant.train is not None]
    found += [_beside(run, variant, trained[0]) for variant in trained[1:]]
    return [finding for finding in [*found, *_fronts(run)] if finding is not None]


def _verdicts(run: Run, variant: Variant) -> Finding | None:
    if variant.status == "failed":
        return Finding(variant.name, f"failed: {numbers.one_line(variant.error or 'no reason was recorded')}")
    deltas = [(task, delta) for task in run.tasks if (delta := headline_delta(variant, task)) is not None]
    than = f" than {run.baseline}"
    clauses: list[str] = []
    for verdict, words in (("better", "better{}"), ("undecided", "no difference{} shown"), ("worse", "worse{}")):
        names = [
            task.name + (" (forgetting)" if verdict == "worse" and not task.trained_on else "")
            for task, delta in deltas
            if delta.verdict == verdict
        ]
        if names:
            against = than.replace("than", "from") if verdict == "undecided" else than
            everywhere = len(names) == len(deltas) > 3 and verdict != "worse"
            on = f"all {len(names)} tasks" if everywhere else numbers.listing(names)
            clauses.append(f"{words.format('' if clauses else against)} on {on}")
    separator = "; " if any(" and " in clause for clause in clauses) else ", "
    return Finding(variant.name, separator.join(clauses)) if clauses else None


def headline_delta(variant: Variant, task: TaskInfo) -> Delta | None:
    """A variant's difference from the baseline on a task's headline."""
    score = score_of(variant, task.name, task.headline)
    return None if score is None else score.delta


def _beside(run: Run, variant: Variant, reference: Variant) -> Finding | None:
    """The costs of one trained variant as multiples of another's, and their difference on the leading headline."""
    parts = []
    for measure in sorted(measures(run), key=lambda measure: measure.name == "train"):
        if measure.name not in ("peak GPU", "peak RSS", "train"):
            continue
        mine, theirs = measure.comparable(variant), measure.comparable(reference)
        if mine is not None and theirs:
            parts.append(f"{mine / theirs:.2f} × the {measure.words}")
    text = ", ".join(parts)
    for task in leading(run):
        found = difference(run, task, variant.name, reference.name)
        if found is not None:
            shown = scale_of(run, task.name, task.headline).difference(found.value, found.low, found.high)
            verdict = "no difference shown" if found.verdict == "undecided" else found.verdict
            text += ("; " if text else "") + f"{task.name}: {verdict} ({shown})"
    return Finding(f"{variant.name} vs {reference.name}", text) if text else None


def _fronts(run: Run) -> list[Finding]:
    """Pareto fronts of the leading headline over what training and what answering costs."""
    found = []
    by_name = {measure.name: measure for measure in measures(run)}
    for task in leading(run):
        for name in ("peak GPU", "peak RSS", "decode/token"):
            if name in by_name and (front := front_of(run, task, task.headline, by_name[name])[1]):
                found.append(Finding(f"Pareto front ({task.name}, {name})", ", ".join(front)))
    return found


def front_of(run: Run, task: TaskInfo, metric: str, measure: Measure) -> tuple[list[str], list[str]]:
    """The variants that can be placed on a quality and a cost, and those of them that no other one beats on both.

    Returns:
        Names of the variants placed and of the front; the front is empty when fewer than two can be placed.
    """
    points = {}
    for variant in run.variants:
        score, cost = score_of(variant, task.name, metric), measure.comparable(variant)
        if score is not None and score.value is not None and cost is not None:
            points[variant.name] = (score.value, cost)
    if len(points) < 2:
        return list(points), []
    return list(points), ranking.pareto(points, higher_is_better=higher_is_better(task, metric))


def footnotes(run: Run) -> list[str]:
    """What must be read with the tables: the legend, honesty about seeds, notes and warnings."""
    deltas = [delta for variant in run.variants for task in run.tasks if (delta := headline_delta(variant, task))]
    lines = []
    if deltas:
        marks = "  ".join(
            f"{mark} {'no difference shown' if verdict == 'undecided' else verdict}"
            for verdict, mark in numbers.MARKS.items()
        )
        tests = sum(delta.p_holm is not None for delta in deltas)
        lines += [
            marks,
            "± is the 95 % interval of the paired difference, unadjusted; a verdict is a Holm-adjusted p < .05"
            f" over {tests} test{'s' * (tests != 1)}",
        ]
    if ranks_shown(run):
        lines.append("rank: 1 + the number of variants shown better, so variants not shown to differ share it")
    if run.replicated:
        lines.append(
            f"over {'folds' if run.config.get('folds') else 'seeds'}: mean ± standard deviation; the difference's interval"
            " takes samples and trainings into account: it speaks of methods, the rows above of these trained models"
        )
    elif deltas and any(variant.train for variant in run.variants):
        lines.append(
            "one training seed: these are differences between these trained models; `--seeds 3` speaks of methods"
        )
    return lines + [f"note: {numbers.one_line(note)}" for note in run.notes] + _warnings(run)


def ranks_shown(run: Run) -> bool:
    """Whether the tables have ranks."""
    return any(ranks(run, task) for task in run.tasks)


def _warnings(run: Run) -> list[str]:
    lines = [_trained_on(overlap) for overlap in run.overlaps if overlap.contained]
    unsure: dict[int, list[str]] = {}
    for task in run.tasks:
        deltas = [headline_delta(variant, task) for variant in run.variants]
        if task.smallest_difference is None or not any(delta and delta.verdict == "undecided" for delta in deltas):
            continue
        scale = scale_of(run, task.name, task.headline)
        about = f"{scale.value(task.smallest_difference)} {scale.unit}".strip()
        unsure.setdefault(task.n, []).append(f"{about} on {task.name}")
    for n, differences in unsure.items():
        lines.append(
            f"warning: with {n} samples a difference under about {numbers.listing(differences)}"
            " cannot be told from noise; four times the samples halve that"
        )
    for variant in run.variants:
        if variant.train is not None and not variant.train.curve.startswith(("converged", "reward")):
            lines.append(f"warning: {variant.name}: training loss {numbers.one_line(variant.train.curve)}")
    return lines


def _trained_on(overlap: Overlap) -> str:
    """What was scored and stands in the training data, with an example."""
    first = overlap.examples[0]
    text = first.text if len(first.text) <= 120 else first.text[:119] + "…"
    return numbers.one_line(
        f"warning: {overlap.contained:,} of {overlap.n:,} samples of {overlap.task} ({overlap.contained / overlap.n:.0%})"
        f" stand in the training data ({overlap.train}), so their scores show memory; such as sample {first.id},"
        f" in row {first.train_row}: “{text}”"
    )


_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def header(run: Run) -> str:
    """What the numbers depend on, in one line: the model and `facts`."""
    return " · ".join([model_name(run), *facts(run)])


def model_name(run: Run) -> str:
    """The model as it was asked for."""
    return numbers.one_line(str((run.environment.get("model") or {}).get("name") or "unnamed model"))


def facts(run: Run) -> list[str]:
    """Samples, seed, device, versions."""
    environment = run.environment
    sizes = sorted({task.n for task in run.tasks})
    samples = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}" if sizes else "no"
    device = environment.get("device_name") or environment.get("cpu") or environment.get("device")
    torch = str((environment.get("packages") or {}).get("torch", "")).partition("+")[0]
    dtype = str(environment.get("dtype") or "").removeprefix("torch.")
    numerics = " ".join(word for word in (f"torch {torch}" if torch else "", _DTYPES.get(dtype, dtype)) if word)
    known = [f"{samples} samples a task", f"seed {run.seed}", device, numerics, f"harness {run.harness}"]
    return [numbers.one_line(str(fact)) for fact in known if fact]
