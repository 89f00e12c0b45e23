"""Diversity: how much a model repeats itself over all its texts (not within one text).

The metrics are computed on the whole set, so they depend on the number of texts: compare them between variants on the
same samples, never between tasks. A word is a run of letters and digits in lower case (a character in scripts without
spaces), or a punctuation mark.

    >>> distinct_1.whole([["a cat sat"], ["a dog sat"]]), round(self_bleu.whole([["a cat sat down"], ["a cat sat up"]]), 3)
    (0.6666666666666666, 0.398)
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import regex

from harness.api import Generate, Metric, Output
from harness.metrics.cjk import space_out
from harness.metrics.kinds import expect

Ngram = tuple[str, ...]

MOST_TEXTS = 1000
"""Maximum number of texts for self-BLEU: its value and its time grow with the number of texts."""
_WORD = regex.compile(r"[\p{L}\p{N}\p{M}_\u200c\u200d]+|[^\p{L}\p{N}\p{M}_\u200c\u200d\s]")
"""Includes vowel signs and joiners: Python's `\\w` splits words of Indian scripts there."""
_ORDERS = (1, 2, 3, 4)
_EPSILON = 0.1


def _texts(name: str) -> Callable[[Output, Any], list[str]]:
    def gather(output: Output, sample: Any) -> list[str]:
        expect(Generate, sample, name)
        return list(output.texts)

    return gather


def _distinct(order: int) -> Callable[[Sequence[list[str]]], float]:
    def whole(gathered: Sequence[list[str]]) -> float:
        total, distinct = 0, set()
        for texts in gathered:
            for text in texts:
                found = _ngrams(_words(text), order)
                total += len(found)
                distinct.update(found)
        return len(distinct) / total if total else math.nan

    return whole


def _self_bleu(gathered: Sequence[list[str]]) -> float:
    """Returns the mean BLEU of each text with all other texts as references; NaN for fewer than two texts with words.

    All texts are scored in one pass: for each n-gram, the two highest counts of any text are stored, so that the
    references' count is known for every text without another pass.
    """
    texts = [words for text in _chosen(gathered) if (words := _words(text))]
    if len(texts) < 2:
        return math.nan
    counts = [[Counter(_ngrams(words, order)) for order in _ORDERS] for words in texts]
    highest: dict[Ngram, tuple[int, int, int]] = {}
    for number, orders in enumerate(counts):
        for ngram, count in (pair for order in orders for pair in order.items()):
            first, owner, second = highest.get(ngram, (0, -1, 0))
            if count > first:
                highest[ngram] = (count, number, first)
            elif count > second:
                highest[ngram] = (first, owner, count)
    lengths = sorted(map(len, texts))
    scores = []
    for number, (words, orders) in enumerate(zip(texts, counts, strict=True)):
        matched = [
            sum(
                min(count, second if owner == number else first)
                for count, (first, owner, second) in _with(order, highest)
            )
            for order in orders
        ]
        totals = [max(order.total(), 1) for order in orders]
        scores.append(_bleu(matched, totals, len(words), _closest(lengths, len(words))))
    return math.fsum(scores) / len(scores)


def _with(
    order: Counter[Ngram], highest: dict[Ngram, tuple[int, int, int]]
) -> Iterable[tuple[int, tuple[int, int, int]]]:
    return ((count, highest[ngram]) for ngram, count in order.items())


def _bleu(matched: Sequence[int], totals: Sequence[int], length: int, target_length: int) -> float:
    """Returns sentence BLEU-4; an n without a match counts as 0.1 matches (Chen & Cherry 2014, method 1)."""
    if not matched[0]:
        return 0.0
    logarithms = [math.log((right or _EPSILON) / total) for right, total in zip(matched, totals, strict=True)]
    brevity = 1.0 if length > target_length else math.exp(1 - target_length / length)
    return brevity * math.exp(math.fsum(logarithms) / len(_ORDERS))


def _closest(lengths: Sequence[int], length: int) -> int:
    """Returns the nearest length among the other texts; the shorter of two equally near ones."""
    at = bisect_left(lengths, length)
    others = [*lengths[max(at - 1, 0) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda other: (abs(other - length), other))


def _chosen(gathered: Sequence[list[str]]) -> list[str]:
    """Returns all texts or, if more than `MOST_TEXTS`, those with the lowest hash: independent of their order."""
    texts = [text for sample in gathered for text in sample]
    if len(texts) <= MOST_TEXTS:
        return texts
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())[:MOST_TEXTS]


@lru_cache(maxsize=50_000)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(space_out(text.lower())))


def _ngrams(words: Sequence[str], order: int) -> list[Ngram]:
    return list(zip(*(words[start:] for start in range(order)), strict=False))


distinct_1 = Metric("distinct_1", gather=_texts("distinct_1"), whole=_distinct(1), bounds=(0, 1))
"""0–1. Distinct words / all words, over all texts (Li et al., NAACL 2016). It decreases with longer or more texts."""

distinct_2 = Metric("distinct_2", gather=_texts("distinct_2"), whole=_distinct(2), bounds=(0, 1))
"""0–1. As `distinct_1`, with pairs of neighbouring words."""

distinct_3 = Metric("distinct_3", gather=_texts("distinct_3"), whole=_distinct(3), bounds=(0, 1))
"""0–1. As `distinct_1`, with triples of neighbouring words."""

self_bleu = Metric("self_bleu", gather=_texts("self_bleu"), whole=_self_bleu, higher_is_better=False, bounds=(0, 1))
"""0–1. The mean BLEU-4 of each text with all other texts as references (Zhu et al., SIGIR 2018); 1: all texts are the
same. Texts without words are ignored. Of more than 1,000 texts, the 1,000 with the lowest hash are used; the interval
is then too wide rather than too narrow."""
