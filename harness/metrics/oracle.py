"""Tests a metric without a model: a perfect model must score better than one that gives a constant wrong answer.

>>> from harness.api import Metric
>>> blind = Metric("blind", score=lambda prediction, target: 1.0)
>>> find_blindness(blind, [Generate("The capital of France is", "Paris")])
Blindness(oracle=1.0, constant=1.0, answer='')
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from harness import metrics as built_in
from harness.api import Choose, Generate, Metric, Output, Sample, Text
from harness.errors import UserError
from harness.prompts.samples import answer_text
from harness.sandbox.processors import processors

CONSTANTS = ("", "-")
"""Wrong answers that a constant model gives."""
TRIALS = ((8, 0.1), (200, 1.0))
"""Numbers of samples and seconds of the trials: a metric is blind only if it fails both."""
_OF_MODELS = ("harness.metrics.entailment", "harness.metrics.judged", "harness.metrics.by_name")
"""Modules of metrics that can load a model."""


@dataclass(frozen=True)
class Blindness:
    """The values of a metric for a perfect model and for a constant answer that is not worse."""

    oracle: float
    constant: float
    answer: str | None
    """The constant answer; None: a guess among the choices."""


def find_blindness(metric: Metric, samples: Sequence[Sample]) -> Blindness | None:
    """Finds a constant wrong answer that the metric scores at least as high as the right answers.

    Tries a few samples, then more. Samples without a target, texts, and metrics that may load a model are not tried, and
    neither are built-in metrics of choices. A metric that raises an exception other than a `UserError`, or gives no
    finite number, is not called blind.

    Args:
        metric: The metric.
        samples: All samples that it will score.

    Raises:
        UserError: The metric cannot score these samples.
    """
    makes = metric.score or metric.stats or metric.gather
    if getattr(makes, "__module__", None) in _OF_MODELS:
        return None
    is_ours = metric is getattr(built_in, metric.name, None)
    tried = [s for s in samples if not isinstance(s, Text | Choose if is_ours else Text) and has_answer(s)]
    found = None
    for count, seconds in TRIALS:
        chosen = tried[:: max(len(tried) // count, 1)][:count]
        found = _blindness(metric, chosen, seconds) if chosen else None
        if found is None:
            return None
    return found


def _blindness(metric: Metric, samples: Sequence[Sample], seconds: float) -> Blindness | None:
    end = time.monotonic() + seconds
    perfect: list[list[Any]] = []
    wrong: dict[str | None, list[list[Any]]] = {}
    try:
        for sample in samples:
            perfect.append(best(metric, [metric.measure(output, sample) for output in oracles(sample)]))
            for answer, outputs in _constants(metric, sample).items():
                wrong.setdefault(answer, []).append([metric.measure(output, sample) for output in outputs])
            if time.monotonic() > end:
                break
        oracle = value_of(metric, perfect)
        for answer, measured in wrong.items():
            constant = value_of(metric, measured)
            better = oracle > constant if metric.higher_is_better else oracle < constant
            if math.isfinite(oracle) and math.isfinite(constant) and not better:
                return Blindness(oracle, constant, answer)
    except UserError:
        raise
    except Exception:  # a metric is code of the user; the run shows its error, with the sample
        pass
    return None


def _constants(metric: Metric, sample: Sample) -> dict[str | None, list[Output]]:
    if isinstance(sample, Generate):
        return {answer: [Output(texts=(answer,) * sample.samples)] for answer in CONSTANTS}
    return {None: undecided(sample) if metric.gather is not None else guesses(sample)}


def best(metric: Metric, given: list[Any]) -> list[Any]:
    """Of the measures of several targets, the one with the best score; without scores per sample, the first."""
    return [max(given)] if metric.score is not None else given[:1]


def oracles(sample: Sample) -> list[Output]:
    """Outputs of perfect models: each target, cut at the stop strings; certainty of the right choice, or of the text."""
    if isinstance(sample, Generate):
        targets = [sample.target] if isinstance(sample.target, str) else sample.target
        return [Output(texts=(_cut(target, sample.stop),) * sample.samples) for target in targets]
    if isinstance(sample, Choose):
        right = (sample.answer,) if isinstance(sample.answer, int) else tuple(sample.answer)
        return [_chosen(sample, right)]
    return [Output(loglikelihoods=(0.0,), is_greedy=(True,), tokens=1)]


def guesses(sample: Sample) -> list[Output]:
    """Equally likely outputs of a model that knows nothing: an empty text; each choice; a text of uniformly random bytes."""
    if isinstance(sample, Generate):
        return [Output(texts=("",) * sample.samples)]
    if isinstance(sample, Choose):
        return [_chosen(sample, (winner,)) for winner in range(len(sample.choices))]
    size = len(sample.text.encode())
    return [Output(loglikelihoods=(-size * math.log(256),), is_greedy=(False,), tokens=max(size, 1))]


def _chosen(sample: Choose, indices: Sequence[int]) -> Output:
    every = range(len(sample.choices))
    return Output(
        loglikelihoods=tuple(0.0 if index in indices else -1e4 for index in every),
        is_greedy=tuple(index == indices[0] for index in every),
    )


def undecided(sample: Sample) -> list[Output]:
    """One guess that favours no choice, for metrics of all samples together, for which a mean over guesses is undefined."""
    if not isinstance(sample, Choose):
        return guesses(sample)
    count = len(sample.choices)
    return [Output(loglikelihoods=(-math.log(max(count, 1)),) * count, is_greedy=(False,) * count)]


def _cut(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0]
    return text


def has_answer(sample: Sample) -> bool:
    """Whether a sample has an answer to compare with; instructions have an empty target."""
    return not isinstance(sample, Generate) or bool(answer_text(sample).strip())


def measured(metric: Metric, samples: Sequence[Sample], answers: Callable[[Sample], list[Output]]) -> list[list[Any]]:
    """The metric of each answer to each sample, in parallel: metrics that run programs wait for them."""
    given = undecided if metric.gather is not None and answers is guesses else answers
    with ThreadPoolExecutor(processors()) as pool:
        return list(pool.map(lambda sample: [metric.measure(output, sample) for output in given(sample)], samples))


def value_of(metric: Metric, measured: Sequence[Sequence[Any]]) -> float:
    """The metric over all samples, averaged over the equally likely answers of each sample; NaN if it is undefined."""
    try:
        if metric.whole is not None:
            return float(metric.whole([answers[0] for answers in measured]))
        if metric.value is not None:
            means = [
                [math.fsum(column) / len(answers) for column in zip(*answers, strict=True)] for answers in measured
            ]
            return float(metric.value(tuple(math.fsum(column) for column in zip(*means, strict=True))))
    except (ArithmeticError, ValueError):
        return math.nan
    return math.fsum(math.fsum(scores) / len(scores) for scores in measured) / len(measured)
