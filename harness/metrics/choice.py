"""Which choice a model takes, by log-likelihood: the likeliest is its answer.

>>> from harness.api import Choose, Output
>>> sample = Choose("The capital of France is", [" Rome", " Paris"], answer=1)
>>> acc.measure(Output(loglikelihoods=(-4.5, -1.2)), sample)
1.0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from harness.api import Choose, Metric, Output
from harness.errors import UserError
from harness.metrics.kinds import expect


def _answers(sample: Choose, scores: Sequence[float]) -> tuple[int, ...]:
    """Indices of the right choices, all of which must be there, as must a score for every choice."""
    answers = (sample.answer,) if isinstance(sample.answer, int) else tuple(sample.answer)
    for answer in answers:
        if not 0 <= answer < len(sample.choices):
            raise UserError(
                f"answer {answer} of a Choose sample is not one of its {len(sample.choices)} choices",
                hint="`answer` is an index that starts at 0, or several",
            )
    if len(scores) != len(sample.choices):
        raise ValueError(f"{len(scores)} log-likelihoods for {len(sample.choices)} choices")
    return answers


def _right(sample: Choose, scores: Sequence[float]) -> float:
    """1 if the best choice (the first of equals) is a right one, 0 if not; NaN where a score is NaN."""
    answers = _answers(sample, scores)
    if any(math.isnan(score) for score in scores):
        return math.nan
    return float(max(range(len(scores)), key=lambda index: scores[index]) in answers)


def _acc(output: Output, sample: Choose) -> float:
    return _right(expect(Choose, sample, "acc"), output.loglikelihoods)


def _normalized(name: str, length: Callable[[str], int]) -> Metric:
    """An accuracy by log-likelihood per unit of length."""

    def score(output: Output, sample: Choose) -> float:
        sizes = [length(text) for text in expect(Choose, sample, name).choices]
        # Dividing by nothing gives lm-evaluation-harness minus infinity too: an empty choice is never the best.
        scores = zip(output.loglikelihoods, sizes, strict=True)
        return _right(sample, [ll / size if size else -math.inf for ll, size in scores])

    return Metric(name, score=score)


def _mc2(output: Output, sample: Choose) -> float:
    scores = output.loglikelihoods
    answers = _answers(expect(Choose, sample, "mc2"), scores)
    if any(math.isnan(score) for score in scores):
        return math.nan
    best = max(scores)  # taken off before `exp`, under which a long choice would vanish
    shares = [math.exp(score - best) for score in scores]
    return math.fsum(shares[answer] for answer in set(answers)) / math.fsum(shares)


acc = Metric("acc", score=_acc)
"""0–1. The choice with the highest log-likelihood is right; ties go to the first, as in lm-evaluation-harness."""

acc_norm = _normalized("acc_norm", len)
"""0–1. As `acc`, each log-likelihood divided by the characters of its choice (delimiter not counted), which takes away the
advantage of short choices; as in lm-evaluation-harness."""

acc_bytes = _normalized("acc_bytes", lambda text: len(text.encode()))
"""0–1. As `acc_norm`, by UTF-8 bytes: choices in several scripts are compared more fairly; as in lm-evaluation-harness."""

mc2 = Metric("mc2", score=_mc2)
"""0–1. The share of the probability of all choices that the right ones have together: TruthfulQA's MC2 (Lin et al. 2022,
arXiv 2109.07958), as in lm-evaluation-harness."""
