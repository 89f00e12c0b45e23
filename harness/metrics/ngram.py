"""Corpus BLEU and chrF, computed from counts that add up over samples.

Counting and tokenising are sacrebleu's, so a corpus has exactly the score that sacrebleu gives it; the counts of each
sample are kept, so that a resampled corpus is scored in microseconds.

    >>> from harness.api import Generate, Output
    >>> counts = bleu.measure(Output(texts=("the cat sat",)), Generate("…", "the cat sat down"))
    >>> counts, round(chrf.value(chrf.measure(Output(texts=("the cat sat",)), Generate("…", "the cat sat down"))), 1)
    ((3.0, 4.0, 3.0, 2.0, 1.0, 0.0, 3.0, 2.0, 1.0, 0.0), 66.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.api import Generate, Metric, Output, Stats
from harness.errors import UserError, did_you_mean
from harness.metrics.guard import expect

if TYPE_CHECKING:
    from collections import Counter

_TOKENIZERS = {"bleu": "13a", "bleu_zh": "zh"}
_BETA2 = 4.0  # recall counts twice as much as precision: the 2 of chrF2
_ORDERS = 6


def signature(name: str, *, references: int = 1) -> str:
    """What sacrebleu asks to be stated beside a score: tokenizer, case, smoothing, version.

    Args:
        name: `bleu`, `bleu_zh` or `chrf`.
        references: Targets of a sample.

    Raises:
        UserError: It is another metric.

    Example:
        >>> signature("chrf").rpartition("|")[0]
        'nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no'
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    known = (*_TOKENIZERS, "chrf")
    if name not in known:
        raise UserError(f"metric `{name}` has no sacrebleu signature", hint=did_you_mean(name, known))
    scorer = CHRF() if name == "chrf" else BLEU(tokenize=_TOKENIZERS[name])
    scorer.corpus_score(["-"], [["-"]] * references)  # sacrebleu knows the number of references only after scoring
    return str(scorer.get_signature())


def _bleu_stats(name: str, output: Output, sample: Any) -> Stats:
    score = _bleu_scorer(_TOKENIZERS[name]).sentence_score(output.texts[0], _targets(sample, name))
    return (score.sys_len, score.ref_len, *score.counts, *score.totals)


@cache
def _bleu_scorer(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=True)  # the order matters to a sentence's score, not to its counts


def _bleu_value(stats: Stats) -> float:
    text_words, target_words, *counts = stats
    found, written = counts[:4], counts[4:]
    if not any(found) or not all(written):
        return 0.0
    brevity = math.exp(1 - target_words / text_words) if text_words < target_words else 1.0
    logarithms, halving = [], 1.0
    for right, total in zip(found, written, strict=True):
        if (
            right == 0
        ):  # exponential smoothing: the first n without a match counts as half a match, the next as a quarter
            halving *= 2
        logarithms.append(math.log(100 * right / total if right else 100 / (halving * total)))
    return brevity * math.exp(sum(logarithms) / 4)


def _chrf_stats(output: Output, sample: Any) -> Stats:
    """Counts in text, target and both, for each n; of several targets, those of the one with the best score."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    written = extract_all_char_ngrams(output.texts[0], _ORDERS)
    candidates = [
        _chrf_counts(written, extract_all_char_ngrams(target, _ORDERS)) for target in _targets(sample, "chrf")
    ]
    return max(candidates, key=_chrf_value)


def _chrf_counts(written: Sequence[Counter[str]], wanted: Sequence[Counter[str]]) -> Stats:
    stats: list[float] = []
    for text, target in zip(written, wanted, strict=True):
        both = sum(min(count, target[ngram]) for ngram, count in text.items())
        stats += [text.total() if target else 0, target.total(), both]  # a target too short for n asks nothing of n
    return tuple(stats)


def _chrf_value(stats: Stats) -> float:
    orders = [stats[start : start + 3] for start in range(0, len(stats), 3)]
    counted = [(both / text, both / target) for text, target, both in orders if text > 0 and target > 0]
    if not counted:
        return 0.0
    precision = sum(p for p, _ in counted) / len(counted)
    recall = sum(r for _, r in counted) / len(counted)
    if precision + recall == 0:
        return 0.0
    return 100 * ((1 + _BETA2) * precision * recall / (_BETA2 * precision + recall))


def _targets(sample: Any, metric: str) -> Sequence[str]:
    target = expect(Generate, sample, metric).target
    return [target] if isinstance(target, str) else target


bleu = Metric("bleu", stats=lambda output, sample: _bleu_stats("bleu", output, sample), value=_bleu_value)
"""0–100. Corpus BLEU (Papineni et al., ACL 2002) as sacrebleu computes it (Post, WMT 2018): 13a tokens, cased, exponential
smoothing. `signature("bleu")` is what to state beside it."""

bleu_zh = Metric("bleu_zh", stats=lambda output, sample: _bleu_stats("bleu_zh", output, sample), value=_bleu_value)
"""0–100. As `bleu`, with sacrebleu's `zh` tokens (each Chinese character is one), for Chinese targets."""

chrf = Metric("chrf", stats=_chrf_stats, value=_chrf_value)
"""0–100. Corpus chrF2 (Popović, WMT 2015) as sacrebleu computes it: n-grams of up to six characters, spaces left out."""
