"""N-grams of words in many texts, indexed as 64-bit hashes.

Example:
    >>> index = NgramIndex([[1, 2, 3, 4], [2, 3, 4, 5]], 3)
    >>> [int(count) for count in index.counts(np.unique(index.hashes))]
    [1, 2, 1]
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[Any]
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class NgramIndex:
    """Every n-gram in a list of texts.

    Args:
        texts: Texts as lists of word numbers; 0 is an unknown word, and n-grams that contain it are left out.
        size: Words of an n-gram.
    """

    def __init__(self, texts: Sequence[Sequence[int]], size: int) -> None:
        begins = np.cumsum([0, *(len(text) + 1 for text in texts)])  # a 0 after each: no n-gram spans two texts
        words = np.zeros(begins[-1] + size, np.uint64)
        words[: begins[-1]] = np.fromiter(itertools.chain.from_iterable((*text, 0) for text in texts), np.uint64)
        hashes, known = np.zeros(begins[-1], np.uint64), np.ones(begins[-1], bool)
        for offset in range(size):
            shifted = words[offset : offset + len(hashes)]
            hashes = (hashes + shifted) * _FACTOR
            hashes ^= hashes >> np.uint64(29)
            known &= shifted != 0
        positions = np.flatnonzero(known)
        self.hashes: IntArray = hashes[positions]
        self._texts = np.searchsorted(begins, positions, side="right") - 1
        self._starts = positions - begins[self._texts]

    def counts(self, hashes: IntArray) -> IntArray:
        """The number of texts that contain each n-gram."""
        chosen = np.isin(self.hashes, hashes)
        pairs = np.unique(np.stack([np.searchsorted(hashes, self.hashes[chosen]), self._texts[chosen]]), axis=1)
        return np.bincount(pairs[0].astype(np.int64), minlength=len(hashes))

    def texts_with(self, hashes: IntArray) -> dict[int, set[int]]:
        """The indices of the texts that contain each n-gram, by hash."""
        found: dict[int, set[int]] = defaultdict(set)
        chosen = np.isin(self.hashes, hashes)
        for value, text in zip(self.hashes[chosen].tolist(), self._texts[chosen].tolist(), strict=True):
            found[value].add(text)
        return found

    def positions(self, hashes: IntArray) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """The index of each text that contains some of the n-grams, with pairs of start and hash."""
        chosen = np.isin(self.hashes, hashes)
        columns = (self._texts[chosen].tolist(), self._starts[chosen].tolist(), self.hashes[chosen].tolist())
        for text, group in itertools.groupby(zip(*columns, strict=True), key=lambda entry: entry[0]):
            yield text, [(start, value) for _, start, value in group]
