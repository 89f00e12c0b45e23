"""Multiple-choice accuracy by log-likelihood: the likeliest choice is the model's answer.

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


def likeliest(loglikelihoods: Sequence[float]) -> int:
    """Returns the index of the highest log-likelihood; the first of equals.

    Example:
        >>> likeliest((-4.5, -1.2, -1.2))
        1
    """
    return max(range(len(loglikelihoods)), key=lambda index: loglikelihoods[index])


def _answers(sample: Choose, scores: Sequence[float]) -> tuple[int, ...]:
    """Returns the indices of the right choices; checks that they exist and that every choice has a score."""
    answers = (sample.answer,) if isinstance(sample.answer, int) else tuple(sample.answer)
    for answer in answers:
        if not 0 <= answer < len(sample.choices):
            raise UserError(
                f"answer {answer} of a Choose sample is not one of its {len(sample.choices)} choices",
                hint="`answer` is one index or several; the first choice is 0",
            )
    if len(scores) != len(sample.choices):
        raise ValueError(f"{len(scores)} log-likelihoods for {len(sample.choices)} choices")
    return answers


def _right(sample: Choose, scores: Sequence[float]) -> float:
    """Returns 1 if the best choice (the first of equals) is right, else 0; NaN if a score is NaN."""
    answers = _answers(sample, scores)
    if any(math.isnan(score) for score in scores):
        return math.nan
    return float(likeliest(scores) in answers)


def _acc(output: Output, sample: Choose) -> float:
    return _right(expect(Choose, sample, "acc"), output.loglikelihoods)


def _normalized(name: str, length: Callable[[str], int]) -> Metric:
    """Makes an accuracy by log-likelihood per unit of length."""

    def score(output: Output, sample: Choose) -> float:
        sizes = [length(text) for text in expect(Choose, sample, name).choices]
        # As in lm-evaluation-harness, an empty choice scores minus infinity: it is never the best.
        scores = zip(output.loglikelihoods, sizes, strict=True)
        return _right(sample, [ll / size if size else -math.inf for ll, size in scores])

    return Metric(name, score=score, bounds=(0, 1))


def _mc2(output: Output, sample: Choose) -> float:
    scores = output.loglikelihoods
    answers = _answers(expect(Choose, sample, "mc2"), scores)
    if any(math.isnan(score) for score in scores):
        return math.nan
    best = max(scores)  # subtracted before `exp`, so that a long choice does not underflow
    shares = [math.exp(score - best) for score in scores]
    return math.fsum(shares[answer] for answer in set(answers)) / math.fsum(shares)


acc = Metric("acc", score=_acc, bounds=(0, 1))
"""0–1. The choice with the highest log-likelihood is right; ties go to the first, as in lm-evaluation-harness."""

acc_norm = _normalized("acc_norm", len)
"""0–1. As `acc`, each log-likelihood divided by the characters of its choice (without the delimiter), which removes the
advantage of short choices; as in lm-evaluation-harness."""

acc_bytes = _normalized("acc_bytes", lambda text: len(text.encode()))
"""0–1. As `acc_norm`, divided by UTF-8 bytes: fairer for choices in several scripts; as in lm-evaluation-harness."""

mc2 = Metric("mc2", score=_mc2, bounds=(0, 1))
"""0–1. The right choices' share of the probability of all choices: TruthfulQA's MC2 (Lin et al. 2022,
arXiv 2109.07958), as in lm-evaluation-harness."""
