"""Joins runs of one model into one, where their scores can stand side by side.

Two runs are joined if the model, the machine and the baseline are the same, and the baseline has the same scores by the same
protocol on every task that both have, and on at least one. Verdicts are adjusted again over the tests of both. Variants of
different runs were compared with the baseline, and not with each other.

Example:
    >>> [len(run.variants) for run in joined_runs([base_lora, base_qlora])]  # doctest: +SKIP
    [3]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.report.header import device_name
from harness.report.numbers import listing
from harness.results import Comparison, Run, Score, ShownSamples, Variant, verdict_of
from harness.stats.paired import holm

_MACHINE = ("device", "device_name", "driver", "threads", "dtype")
"""Parts of the environment that costs and scores depend on."""


def joined_runs(runs: Sequence[Run]) -> list[Run]:
    """Joins as many runs as possible, in order; a run that fits no earlier one stays alone."""
    found: list[Run] = []
    for run in runs:
        place = next((index for index, other in enumerate(found) if can_join(other, run)), None)
        if place is None:
            found.append(run)
        else:
            found[place] = join(found[place], run)
    return found


def can_join(first: Run, second: Run) -> bool:
    """Whether two runs of one model can be one; the same run given twice can."""
    mine, theirs = first.environment.get("model") or {}, second.environment.get("model") or {}
    if not mine.get("digest") or mine != theirs or first.baseline != second.baseline:
        return False
    if any(first.environment.get(name) != second.environment.get(name) for name in _MACHINE):
        return False
    if device_name(first) is None or first.replicated or second.replicated:
        return False
    bases = [run.variant(run.baseline) for run in (first, second)]
    if bases[0].spec != bases[1].spec or any(task.until_decided for run in (first, second) for task in run.tasks):
        return False
    shared = [
        task for task in first.tasks if any((task.name, task.headline) == (t.name, t.headline) for t in second.tasks)
    ]
    names = {task.name for task in first.tasks} & {task.name for task in second.tasks}
    scores = [tuple(base.headline(task) for base in bases) for task in shared]
    return len(shared) == len(names) > 0 and all(a and b and _same(a, b) for a, b in scores)


def _same(a: Score, b: Score) -> bool:
    return (a.value, a.n, a.protocol) == (b.value, b.n, b.protocol)


def join(first: Run, second: Run) -> Run:
    """Makes one run of two that `can_join`: rows, tasks, comparisons and samples of both."""
    names = _names(first, second)
    added = [
        variant.model_copy(update={"name": names[variant.name]})
        for variant in second.variants
        if names[variant.name] not in {known.name for known in first.variants}
    ]
    kept = [_with_scores(variant, second, names) for variant in first.variants]
    tasks = {task.name: task for task in second.tasks} | {
        task.name: task.model_copy(
            update={"trained_on": task.trained_on or any(t.trained_on for t in second.tasks if t.name == task.name)}
        )
        for task in first.tasks
    }
    order = [*(task.name for task in first.tasks), *(task.name for task in second.tasks)]
    comparisons = {(c.task, c.metric, c.a, c.b): c for c in first.comparisons}
    for found in second.comparisons:
        renamed = found.model_copy(update={"a": names[found.a], "b": names[found.b]})
        place = (renamed.task, renamed.metric, renamed.a, renamed.b)
        if place not in comparisons and (place[0], place[1], place[3], place[2]) not in comparisons:
            comparisons[place] = renamed
    run = first.model_copy(
        update={
            "command": "\n".join(dict.fromkeys([*first.command.split("\n"), *second.command.split("\n")])),
            "tasks": tuple(tasks[name] for name in dict.fromkeys(order)),
            "config": _both(first, second, "config"),
            "config_resolved": _both(first, second, "config_resolved"),
            "config_sha256": first.config_sha256 if first.config_sha256 == second.config_sha256 else "several",
            "notes": tuple(dict.fromkeys([*first.notes, *second.notes, *_apart(first, added)])),
            "overlaps": (*first.overlaps, *(each for each in second.overlaps if each not in first.overlaps)),
            "samples_shown": _samples(first, second, names),
            "seconds": first.seconds | {f"{name} (again)" if name in first.seconds else name: s for name, s in second.seconds.items()},
            "gains": (),
            "recommendation": None,
        }
    )  # fmt: skip
    return _judged(run, [*kept, *added], list(comparisons.values()))


def _names(first: Run, second: Run) -> dict[str, str]:
    """The names of the second run's variants: those that are the same variant keep theirs, other equal names get a number."""
    known = {variant.name: variant for variant in first.variants}
    found: dict[str, str] = {}
    for variant in second.variants:
        name = variant.name
        number = 2
        while (other := known.get(name)) is not None and not _is_same(first, other, second, variant):
            name, number = f"{variant.name} ({number})", number + 1
        found[variant.name] = name
    return found


def _is_same(first: Run, a: Variant, second: Run, b: Variant) -> bool:
    """Whether two rows are the same variant: specification, seed, and scores on the tasks of both."""
    seeds = [variant.train.seed if variant.train else run.seed for run, variant in ((first, a), (second, b))]
    pairs = [(score, b.score(score.task, score.metric)) for score in a.scores]
    return (a.spec, seeds[0]) == (b.spec, seeds[1]) and all(other is None or _same(one, other) for one, other in pairs)


def _with_scores(variant: Variant, second: Run, names: Mapping[str, str]) -> Variant:
    """A variant of the first run with the scores that the second adds."""
    again = next((each for each in second.variants if names[each.name] == variant.name), None)
    if again is None:
        return variant
    known = {(score.task, score.metric) for score in variant.scores}
    more = tuple(score for score in again.scores if (score.task, score.metric) not in known)
    parts = {name: getattr(again, name) for name in ("inference", "artifact") if getattr(variant, name) is None}
    return variant.model_copy(update={"scores": (*variant.scores, *more), **parts})


def _apart(first: Run, added: Iterable[Variant]) -> list[str]:
    mine = [variant.name for variant in first.variants if variant.name != first.baseline]
    theirs = [variant.name for variant in added]
    if not mine or not theirs:
        return []
    return [
        f"{listing(mine)}, and {listing(theirs)}, are of different runs: they were compared with {first.baseline}, and not with"
        " each other, so they share letters and ranks"
    ]


def _both(first: Run, second: Run, name: str) -> dict[str, Any]:
    """The configurations of both, by the time of their run; one if they are equal."""
    mine, theirs = getattr(first, name), getattr(second, name)
    if mine == theirs:
        return dict(mine)
    joined = (
        mine
        if all(isinstance(key, str) and key.startswith("run of ") for key in mine) and mine
        else {f"run of {first.created}": mine}
    )
    place = f"run of {second.created}"
    return {**joined, (f"{place}, {len(joined) + 1}" if place in joined else place): theirs}


def _samples(first: Run, second: Run, names: Mapping[str, str]) -> tuple[ShownSamples, ...]:
    found = {shown.task: shown for shown in first.samples_shown}
    for shown in second.samples_shown:
        renamed = tuple(
            each.model_copy(update={"variant": names[each.variant]}) for each in shown.variants if each.variant in names
        )
        before = found.get(shown.task)
        if before is None:
            found[shown.task] = shown.model_copy(update={"variants": renamed})
            continue
        prompts = {prompt.id: prompt for prompt in (*shown.prompts, *before.prompts)}
        there = {each.variant for each in before.variants}
        variants = (*before.variants, *(each for each in renamed if each.variant not in there))
        found[shown.task] = ShownSamples(task=shown.task, prompts=tuple(prompts.values()), variants=variants)
    return tuple(found.values())


def _judged(run: Run, variants: Sequence[Variant], comparisons: Sequence[Comparison]) -> Run:
    """Adjusts the p-values of all headlines as one family, and sets the verdicts of scores and comparisons from them."""
    tasks = {(task.name, task.headline): task for task in run.tasks}
    tested = [found for found in comparisons if (found.task, found.metric) in tasks]
    judged: dict[tuple[str, str, str, str], Comparison] = {}
    for found, p in zip(tested, holm([found.p for found in tested]), strict=True):
        verdict = verdict_of(found.value, p, tasks[found.task, found.metric].higher_is_better(found.metric))
        tentative = found.tentative if verdict == "undecided" else None
        update = {"p_holm": p, "verdict": verdict, "tentative": tentative}
        judged[found.task, found.metric, found.a, found.b] = found.model_copy(update=update)

    def score(name: str, given: Score) -> Score:
        found = judged.get((given.task, given.metric, name, run.baseline))
        back = judged.get((given.task, given.metric, run.baseline, name))
        made = found or (back.reversed() if back else None)
        return given if made is None or given.delta is None else given.model_copy(update={"delta": made.delta})

    rows = tuple(v.model_copy(update={"scores": tuple(score(v.name, given) for given in v.scores)}) for v in variants)
    others = [found for found in comparisons if (found.task, found.metric) not in tasks]
    return run.model_copy(update={"variants": rows, "comparisons": (*judged.values(), *others), "tests": len(judged)})
