"""ROUGE: overlap of a text with a target summary, as an F-measure.

rouge_score computes it, with Porter stemming. A CJK character is one token here, because rouge_score would drop it.
rouge_score still drops letters of other non-Latin scripts.

    >>> from harness.api import Generate, Output
    >>> round(rouge1.measure(Output(texts=("the cat sat",)), Generate("…", "a cat sat")), 3)
    0.667
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from harness.api import Metric
from harness.metrics.cjk import CJK, space_out


def _rouge(name: str) -> Callable[[str, str], float]:
    def score(prediction: str, target: str) -> float:
        return float(_scorer(name).score(target, prediction)[name].fmeasure)

    return score


@cache
def _scorer(name: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([name], tokenizer=_Tokenizer())


class _Tokenizer:
    """rouge_score's tokenizer, with each CJK character as one token."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._words = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        for piece in space_out(text).split():
            tokens += [piece] if CJK.fullmatch(piece) else self._words.tokenize(piece)
        return tokens


rouge1 = Metric("rouge1", score=_rouge("rouge1"))
"""0–1. Shared words (Lin, 2004), computed by rouge_score with stemming; with several targets, the best counts."""

rouge2 = Metric("rouge2", score=_rouge("rouge2"))
"""0–1. As `rouge1`, with pairs of neighbouring words."""

rougeL = Metric("rougeL", score=_rouge("rougeL"))
"""0–1. As `rouge1`, with the longest common subsequence of the whole text."""

rougeLsum = Metric("rougeLsum", score=_rouge("rougeLsum"))
"""0–1. As `rougeL`, sentence by sentence; a sentence is a line."""
