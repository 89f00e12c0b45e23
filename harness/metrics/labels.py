"""Classification metrics besides accuracy: macro precision, recall and F1, MCC, AUC.

The samples are `Choose` with the same labels as choices; the likeliest is the prediction. The values are
scikit-learn's. For a small number k of labels, 3k counts per sample are stored; their sums are the parts of the
confusion matrix that these metrics need. For many labels, `label_metrics` computes the same metrics from pairs of
answer and prediction.

    >>> from harness.api import Choose, Output
    >>> sample = Choose("A fine film.", ["bad", "good"], answer=1)
    >>> counts = macro_f1.measure(Output(loglikelihoods=(-4.5, -1.2)), sample)
    >>> counts, macro_f1.value(counts)  # per label: found, predicted, wanted
    ((0.0, 1.0, 0.0, 1.0, 0.0, 1.0), 1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from harness.api import Choose, Metric, Output, Stats
from harness.errors import UserError
from harness.metrics.choice import likeliest
from harness.metrics.kinds import expect
from harness.stats.functions import F1, PRECISION, RECALL, RocArea

MANY_LABELS = 20
"""Above this number, counts per label would make the samples files large."""


def label_metrics(labels: int) -> list[Metric]:
    """Returns the classification metrics besides `acc`: macro_f1, macro_precision, macro_recall, mcc, auc.

    Args:
        labels: Number of labels. Above 20, the metrics store pairs instead of counts: the values are the same; the
            intervals come from the jackknife instead of a score interval for each label.

    Example:
        >>> [metric.name for metric in label_metrics(2)]
        ['macro_f1', 'macro_precision', 'macro_recall', 'mcc', 'auc']
    """
    counted = [macro_f1, macro_precision, macro_recall, mcc]
    return [*(counted if labels <= MANY_LABELS else map(_from_pairs, counted)), auc]


def _from_pairs(metric: Metric) -> Metric:
    value = metric.value
    assert value is not None

    def gather(output: Output, sample: Any) -> list[int | None]:
        answer, prediction = _answer_and_prediction(metric.name, output, sample)
        return [answer, prediction]

    def whole(pairs: Sequence[Any]) -> float:
        if any(prediction is None for _, prediction in pairs):
            return math.nan
        answers, predictions = np.asarray(pairs, dtype=np.intp).T
        size = int(max(answers.max(), predictions.max())) + 1
        found = np.bincount(answers[answers == predictions], minlength=size)
        predicted, wanted = np.bincount(predictions, minlength=size), np.bincount(answers, minlength=size)
        return value(tuple(np.concatenate([found, predicted, wanted]).tolist()))

    return Metric(metric.name, gather=gather, whole=whole, bounds=metric.bounds)


def _counts(name: str) -> Callable[[Output, Any], Stats]:
    def stats(output: Output, sample: Any) -> Stats:
        answer, prediction = _answer_and_prediction(name, output, sample)
        size = len(sample.choices)
        if prediction is None:
            return (math.nan,) * (3 * size)
        counts = [0.0] * (3 * size)
        counts[answer] = float(answer == prediction)
        counts[size + prediction] = counts[2 * size + answer] = 1.0
        return tuple(counts)

    return stats


def _answer_and_prediction(name: str, output: Output, sample: Any) -> tuple[int, int | None]:
    """Returns the right label and the likeliest one (the first of equals; None if a log-likelihood is NaN)."""
    choose = expect(Choose, sample, name)
    if not isinstance(choose.answer, int):
        raise UserError(
            f"metric `{name}` needs one right label per sample, and this one has {choose.answer!r}",
            hint="`answer` is one index; use `acc` for several right choices",
        )
    scores = output.loglikelihoods
    if any(math.isnan(score) for score in scores):
        return choose.answer, None
    return choose.answer, likeliest(scores)


def _mcc(sums: Stats) -> float:
    if not np.isfinite(sums).all():
        return math.nan
    found, predicted, wanted = np.reshape(sums, (3, -1))
    n = wanted.sum()
    spread = (n**2 - predicted @ predicted) * (n**2 - wanted @ wanted)
    return float((n * found.sum() - predicted @ wanted) / math.sqrt(spread)) if spread > 0 else 0.0


def _odds(output: Output, sample: Any) -> list[float]:
    """Returns the answer, then each label's log-odds against the others; with two labels, only the second's.

    Log-odds order samples like shares of the likelihood, but do not lose precision near 1. Rounding keeps equal values
    equal.
    """
    answer, prediction = _answer_and_prediction("auc", output, sample)
    scores = np.asarray(output.loglikelihoods)
    if prediction is None or len(scores) < 2 or np.isneginf(scores).all():
        return [answer, math.nan]
    likelihoods = np.exp(scores - scores[prediction])
    others = likelihoods.sum() - likelihoods
    rivals = np.delete(scores, prediction)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = scores - scores[prediction] - np.log(others)
        odds[prediction] = scores[prediction] - rivals.max() - np.log(np.exp(rivals - rivals.max()).sum())
    odds = np.clip(np.nan_to_num(odds.round(10), nan=np.inf), -1e300, 1e300)
    return [answer, *(odds[1:] if len(odds) == 2 else odds).tolist()]


macro_precision = Metric(
    "macro_precision",
    stats=_counts("macro_precision"),
    value=PRECISION,
    bounds=(0, 1),
)
"""0–1. Precision of each label, averaged with equal weights over the labels that occur among answers or predictions. A
label that is never predicted counts 0."""

macro_recall = Metric(
    "macro_recall",
    stats=_counts("macro_recall"),
    value=RECALL,
    bounds=(0, 1),
)
"""0–1. Recall of each label, averaged with equal weights over the labels that occur among answers or predictions."""

macro_f1 = Metric(
    "macro_f1",
    stats=_counts("macro_f1"),
    value=F1,
    bounds=(0, 1),
)
"""0–1. Harmonic mean of each label's precision and recall, averaged with equal weights over the labels that occur among
answers or predictions. Use it if some labels are rare."""

mcc = Metric("mcc", stats=_counts("mcc"), value=_mcc, bounds=(-1, 1))
"""−1 to 1. Matthews' correlation of answers and predictions, for any number of labels (Gorodkin, 2004); 0 for random
predictions, and if all answers or all predictions are the same label."""

auc = Metric("auc", gather=_odds, whole=RocArea(), bounds=(0, 1))
"""0–1, 0.5 for random predictions. Area under the ROC curve: with two labels, that of the second; with more, each label
against the rest by its share of the likelihood, averaged over the labels that occur. None if all samples have the same
label."""
