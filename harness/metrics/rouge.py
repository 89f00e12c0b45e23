"""ROUGE: overlap of a text with a target summary, as an F-measure.

rouge_score computes it, with Porter stemming. rouge_score drops all characters except ASCII letters and digits, so the
words of other texts are found here: by Unicode's word boundaries, one character at a time in scripts without spaces,
and one emoji at a time. The stems and words of ASCII text are exactly those of rouge_score.

    >>> from harness.api import Generate, Output
    >>> round(rouge1.measure(Output(texts=("the cat sat",)), Generate("…", "a cat sat")), 3)
    0.667
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from harness.api import Metric
from harness.metrics.unicode_words import is_latin, unicode_words


def _rouge(name: str) -> Callable[[str, str], float]:
    def score(prediction: str, target: str) -> float:
        return float(_scorer(name).score(target, prediction)[name].fmeasure)

    return score


@cache
def _scorer(name: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([name], tokenizer=_Tokenizer())


class _Tokenizer:
    """rouge_score's tokenizer, extended to words of all scripts."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer
        from rouge_score.tokenizers import DefaultTokenizer

        self._ascii = DefaultTokenizer(use_stemmer=True)
        self._stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return list(self._ascii.tokenize(text))
        # rouge_score, too, leaves words of up to three letters as they are
        return [self._stem(word) if len(word) > 3 and is_latin(word) else word for word in unicode_words(text)]


rouge1 = Metric("rouge1", score=_rouge("rouge1"), bounds=(0, 1))
"""0–1. Shared words (Lin, 2004), computed by rouge_score with stemming of Latin words; with several targets, the best
counts. In scripts without spaces, a character is a word."""

rouge2 = Metric("rouge2", score=_rouge("rouge2"), bounds=(0, 1))
"""0–1. As `rouge1`, with pairs of neighbouring words."""

rougeL = Metric("rougeL", score=_rouge("rougeL"), bounds=(0, 1))
"""0–1. As `rouge1`, with the longest common subsequence of the whole text."""

rougeLsum = Metric("rougeLsum", score=_rouge("rougeLsum"), bounds=(0, 1))
"""0–1. As `rougeL`, sentence by sentence; a sentence is a line."""
