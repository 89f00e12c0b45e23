"""The first lines of a page: which variant to take, and at most four more sentences; never more than was shown.

The variants that are best or tied on most of the tasks that were trained for are candidates; of these, the one with the lowest
cost is named, or several if their costs are not shown to differ. Nothing is recommended where nothing is shown better than the
baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.leaderboards.sections import RunRows, verdict_class
from harness.report import numbers
from harness.report.costs import Measure, measures
from harness.report.gains import trained_for
from harness.report.numbers import counted, listing
from harness.report.recommendation import cheapest
from harness.report.scores import headline_delta, scale_of, titles
from harness.report.tables import difference_cell
from harness.results import Delta, Run, TaskInfo, Variant

_MOST_NAMES = 4


class KeyFigure(NamedTuple):
    """A number under the sentences."""

    name: str
    text: str
    note: str
    kind: str = ""
    """CSS class of the verdict."""


class Lead(NamedTuple):
    """The recommendation of a page."""

    choices: tuple[str, ...]
    """Variants to take, the first is the one in the figures; empty if nothing is recommended."""
    sentence: str
    """The differences that were shown; the text follows "Take X."."""
    more: tuple[str, ...]
    figures: tuple[KeyFigure, ...]


def lead(rows: RunRows) -> Lead:
    """Makes the recommendation of a run."""
    run = rows.run
    scored = [v for v in run.variants if v.status != "failed" and any(v.headline(task) for task in run.tasks)]
    mine = set[str]().union(*(trained_for(run, variant) for variant in scored))
    judged = [task for task in run.tasks if task.name in mine] or list(run.tasks)
    judged = [task for task in judged if rows.standings[task.name].ranks]
    where = f"the {counted(len(judged), 'trained task' if mine else 'task')}"
    trained = [variant for variant in scored if variant.train]
    if len(scored) < 2 or not judged:
        return Lead((), _nothing_to_compare(run, scored), (), ())
    top = {v.name: sum(_is_first(rows, task, v) for task in judged) for v in scored}
    most = max(top.values())
    best = [variant for variant in scored if top[variant.name] == most]
    gained = [v for v in best if any(_verdict(v, task) == "better" for task in judged)]
    base = next((variant for variant in scored if variant.name == run.baseline), None)
    if base in best or not gained:
        return Lead((), _nothing_better(run, scored, judged, best, where), _seeds(run, trained), ())
    chosen, measure = cheapest(run, gained)
    pick = chosen[0]
    others = [variant for variant in gained if variant not in chosen]
    on = where if most == len(judged) else f"{most} of {where}"
    on = titles(run)[judged[0].name] if len(judged) == 1 else on
    sentence = f"No other variant is shown to be better on {on}"
    if len(gained) == 1:
        sentence += ", and that holds for it alone."
    elif others and measure:
        sentence += f"; {len(gained)} variants share that, and of these it has the lowest {measure.words}."
        if len(chosen) > 1:
            sentence = sentence.replace("it has", "they have")
    elif measure:
        sentence += f"; they are not shown to differ in {measure.words} either."
    else:
        sentence += "; their costs are not known, or were measured on a busy machine."
    return Lead(
        tuple(variant.name for variant in chosen),
        sentence,
        tuple(
            filter(
                None,
                (
                    _gains_of(run, pick, judged),
                    _losses_of(run, pick, judged),
                    _smaller(run, pick, [each for each in gained if each is not pick]),
                    *_seeds(run, trained),
                ),
            )
        )[:4],
        tuple(_figures(rows, pick, judged)),
    )


def lead_task(rows: RunRows) -> TaskInfo | None:
    """Chooses the task for the first plot: of those trained for, the one that tells most variants apart."""
    run = rows.run
    mine = set[str]().union(*(trained_for(run, variant) for variant in run.variants))
    tasks = [task for task in run.tasks if task.name in mine] or list(run.tasks)
    return max(tasks, key=lambda task: rows.standings[task.name].distinct, default=None)


def _is_first(rows: RunRows, task: TaskInfo, variant: Variant) -> bool:
    rank = rows.standings[task.name].ranks.get(variant.name)
    return rank is not None and rank.best == 1


def _verdict(variant: Variant, task: TaskInfo) -> str | None:
    delta = headline_delta(variant, task)
    return delta.verdict if delta else None


def _named(names: Iterable[str]) -> str:
    found = list(names)
    if len(found) > _MOST_NAMES:
        return f"{', '.join(found[:_MOST_NAMES])} or one of {len(found) - _MOST_NAMES} others"
    return " or ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _nothing_to_compare(run: Run, scored: Sequence[Variant]) -> str:
    if not scored:
        return "No variant has scores yet."
    if len(scored) == 1:
        return f"Only {scored[0].name} has scores, so there is nothing to compare it with."
    return "Variants were scored until each difference from the baseline was decided, so they have no common order."


def _nothing_better(
    run: Run, scored: Sequence[Variant], judged: Sequence[TaskInfo], best: Sequence[Variant], where: str
) -> str:
    if not any(_verdict(variant, task) == "better" for variant in scored for task in judged):
        on = titles(run)[judged[0].name] if len(judged) == 1 else f"any of {where}"
        return f"Nothing is recommended: no variant is shown to be better than {run.baseline} on {on}."
    names = _named(variant.name for variant in best)
    return f"Nothing is recommended: no variant is best or tied on more of {where} than {names}."


def _gains_of(run: Run, pick: Variant, judged: Sequence[TaskInfo]) -> str:
    better = [task for task in judged if _verdict(pick, task) == "better"]
    shown = [f"{titles(run)[task.name]} {_difference(run, pick, task)}" for task in better[:_MOST_NAMES]]
    rest = f"; and {len(better) - len(shown)} more" if len(better) > len(shown) else ""
    return f"{pick.name} gained over {run.baseline}: {'; '.join(shown)}{rest}."


def _losses_of(run: Run, pick: Variant, judged: Sequence[TaskInfo]) -> str:
    others = [task for task in run.tasks if task not in judged]
    worse = [titles(run)[task.name] for task in others if _verdict(pick, task) == "worse"]
    same = [titles(run)[task.name] for task in others if _verdict(pick, task) == "undecided"]
    if not others:
        return ""
    found = f"It forgot: worse on {_few(worse)}." if worse else "No forgetting was shown."
    return found + (f" No difference was shown on {_few(same)}: a small loss cannot be excluded." if same else "")


def _few(names: Sequence[str]) -> str:
    return listing([*names[:_MOST_NAMES], *([f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else [])])


def _smaller(run: Run, pick: Variant, others: Sequence[Variant]) -> str:
    """Names a candidate whose weights need clearly less memory, with its price in time."""
    sizes = [(each.model_bytes, each) for each in others if each.model_bytes]
    if not sizes or not pick.model_bytes:
        return ""
    size, other = min(sizes, key=lambda pair: pair[0])
    if size > 0.8 * pick.model_bytes:
        return ""
    known = {measure.name: measure for measure in measures(run)}
    slower = [known["decode/token"].comparable(each) if "decode/token" in known else None for each in (other, pick)]
    at = f", at {slower[0] / slower[1]:.1f} × the time per token" if slower[0] and slower[1] else ""
    return (
        f"{other.name} is not shown to be worse on as many, and its weights need {numbers.memory(size)} instead of"
        f" {numbers.memory(pick.model_bytes)}{at}."
    )


def _seeds(run: Run, trained: Sequence[Variant]) -> tuple[str, ...]:
    if run.replicated or not trained:
        return ()
    return ("One training seed: these are differences between trained models; `--seeds 3` compares methods.",)


def _difference(run: Run, variant: Variant, task: TaskInfo) -> str:
    delta = headline_delta(variant, task)
    assert isinstance(delta, Delta)
    return scale_of(run, task.name, task.headline).difference(delta.value, delta.low, delta.high)


def _figures(rows: RunRows, pick: Variant, judged: Sequence[TaskInfo]) -> Iterable[KeyFigure]:
    """The best gain, the worst loss, the cost of training and of use."""
    run = rows.run
    better = [task for task in judged if _verdict(pick, task) == "better"]
    yield _figure(run, pick, max(better or judged, key=lambda task: rows.standings[task.name].distinct))
    others = [task for task in run.tasks if task not in judged and pick.headline(task)]
    if others:
        yield _figure(run, pick, max(others, key=lambda task: (_verdict(pick, task) == "worse", -_holm(pick, task))))
    known = {measure.name: measure for measure in measures(run)}
    if "train" in known and known["train"].read(pick) is not None:
        peak = next((known[name] for name in ("peak GPU", "peak RSS") if name in known), None)
        at = f"{peak.write(peak.read(pick))} at its peak" if peak and peak.read(pick) is not None else ""
        yield KeyFigure("training", _measured(known["train"], pick), at)
    if "decode/token" in known and known["decode/token"].read(pick) is not None:
        ratio = known["decode/token"].ratio(pick)
        times = f"{numbers.ratio(ratio)} {run.baseline}" if ratio else ""
        yield KeyFigure("each new token", _measured(known["decode/token"], pick), times)


def _measured(measure: Measure, variant: Variant) -> str:
    return ("~" if measure.busy(variant) else "") + measure.write(measure.read(variant))


def _holm(variant: Variant, task: TaskInfo) -> float:
    delta = headline_delta(variant, task)
    return 1.0 if delta is None or delta.p_holm is None else delta.p_holm


def _figure(run: Run, pick: Variant, task: TaskInfo) -> KeyFigure:
    score, scale = pick.headline(task), scale_of(run, task.name, task.headline)
    assert score is not None
    delta = score.delta
    note = difference_cell(scale, delta).text if delta else ""
    return KeyFigure(titles(run)[task.name], scale.value(score.value), note, verdict_class(delta))
