"""How much a model repeats itself: over all the texts that it wrote, not within one.

Both kinds look at the whole set at once, so they depend on how many texts there are: compare them between variants on the same
samples, never between tasks. Words are runs of letters and digits in lower case, a CJK character or a sign is one.

    >>> distinct_1.whole([["a cat sat"], ["a dog sat"]]), round(self_bleu.whole([["a cat sat down"], ["a cat sat up"]]), 3)
    (0.6666666666666666, 0.398)
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from harness.api import Generate, Metric, Output
from harness.metrics.cjk import space_out
from harness.metrics.kinds import expect

Ngram = tuple[str, ...]

MOST_TEXTS = 1000
"""Self-BLEU looks at no more: it grows with the number of texts, and so does its time."""
_WORD = re.compile(r"\w+|[^\w\s]")
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
    """The mean of each text's BLEU with all other texts as its references; NaN for fewer than two texts with words.

    All texts are scored in one pass: of each n-gram, the highest count of any text and the runner-up's are kept, so that the
    references' count is known for every text without looking at them again.
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
        written = [max(order.total(), 1) for order in orders]
        scores.append(_bleu(matched, written, len(words), _closest(lengths, len(words))))
    return math.fsum(scores) / len(scores)


def _with(
    order: Counter[Ngram], highest: dict[Ngram, tuple[int, int, int]]
) -> Iterable[tuple[int, tuple[int, int, int]]]:
    return ((count, highest[ngram]) for ngram, count in order.items())


def _bleu(matched: Sequence[int], written: Sequence[int], length: int, target_length: int) -> float:
    """Sentence BLEU-4 of which an n without a match counts as a tenth of one (Chen & Cherry 2014, method 1)."""
    if not matched[0]:
        return 0.0
    logarithms = [math.log((right or _EPSILON) / total) for right, total in zip(matched, written, strict=True)]
    brevity = 1.0 if length > target_length else math.exp(1 - target_length / length)
    return brevity * math.exp(math.fsum(logarithms) / len(_ORDERS))


def _closest(lengths: Sequence[int], length: int) -> int:
    """Of the other texts' lengths the nearest to this one's, the shorter of two."""
    at = bisect_left(lengths, length)
    others = [*lengths[max(at - 1, 0) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda other: (abs(other - length), other))


def _chosen(gathered: Sequence[list[str]]) -> list[str]:
    """All texts, or of more than `MOST_TEXTS` those with the lowest hash: the same ones, whatever their order."""
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
"""0–1. Different words among all words of all texts (Li et al., NAACL 2016). It falls as texts grow longer or more."""

distinct_2 = Metric("distinct_2", gather=_texts("distinct_2"), whole=_distinct(2), bounds=(0, 1))
"""0–1. As `distinct_1`, with pairs of neighbouring words."""

distinct_3 = Metric("distinct_3", gather=_texts("distinct_3"), whole=_distinct(3), bounds=(0, 1))
"""0–1. As `distinct_1`, with three neighbouring words."""

self_bleu = Metric("self_bleu", gather=_texts("self_bleu"), whole=_self_bleu, higher_is_better=False, bounds=(0, 1))
"""0–1. The mean BLEU-4 of each text with all other texts as references (Zhu et al., SIGIR 2018); 1: all texts are the same. Texts
without words are left out; of more than 1,000 texts, the 1,000 with the lowest hash are taken, and the interval is then too
wide rather than too narrow."""
