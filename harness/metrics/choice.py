"""Accuracy of a choice by log-likelihood: the likeliest choice is the model's answer.

>>> from harness.api import Choose, Output
>>> sample = Choose("The capital of France is", [" Rome", " Paris"], answer=1)
>>> acc.measure(Output(loglikelihoods=(-4.5, -1.2)), sample)
1.0
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.api import Choose, Metric, Output
from harness.errors import UserError
from harness.metrics.guard import expect


def _right(sample: Choose, scores: Sequence[float]) -> float:
    """1 if the best choice (the first of equals) is a right one, 0 if not; NaN where a score is NaN."""
    answers = (sample.answer,) if isinstance(sample.answer, int) else tuple(sample.answer)
    for answer in answers:
        if not 0 <= answer < len(sample.choices):
            raise UserError(
                f"answer {answer} of a Choose sample is not one of its {len(sample.choices)} choices",
                hint="`answer` is an index that starts at 0, or several",
            )
    if len(scores) != len(sample.choices):
        raise ValueError(f"{len(scores)} log-likelihoods for {len(sample.choices)} choices")
    if any(math.isnan(score) for score in scores):
        return math.nan
    return float(max(range(len(scores)), key=lambda index: scores[index]) in answers)


def _acc(output: Output, sample: Choose) -> float:
    return _right(expect(Choose, sample, "acc"), output.loglikelihoods)


def _acc_norm(output: Output, sample: Choose) -> float:
    choices = expect(Choose, sample, "acc_norm").choices
    if not all(choices):
        raise UserError("metric `acc_norm` divides by a choice's length, and a choice is empty", hint="use `acc`")
    return _right(sample, [score / len(text) for score, text in zip(output.loglikelihoods, choices, strict=True)])


acc = Metric("acc", score=_acc)
"""0–1. The choice with the highest log-likelihood is right; ties go to the first, as in lm-evaluation-harness."""

acc_norm = Metric("acc_norm", score=_acc_norm)
"""0–1. As `acc`, each log-likelihood divided by the characters of its choice (delimiter not counted), which takes away the
advantage of short choices; as in lm-evaluation-harness."""
