"""Texts that are nearly copies of earlier ones: most of their runs of three words are the same.

Similarity is the share of runs that both texts have among the runs that either has (Jaccard). Candidates are found with
MinHash (Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900) in 16 bands of 4 hashes, and then compared exactly. Runs
that many texts have, such as those of a prompt template, are ignored.

Example:
    >>> first = "The old miller of Bree sold his mill to a baker from the town of Anset last year"
    >>> [(each.text, each.of) for each in near_copies([first, "Something else entirely", first + " indeed"])]
    [(2, 0)]
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.prepare.overlap import words_of

SIMILAR = 0.8
"""Similarity from which a text is a near copy."""
RUN = 3
"""Words of a run."""
COMMON = 10, 0.2
"""A run is ignored if more texts than this number, and than this share of all texts, have it."""
_BANDS, _ROWS = 16, 4
_COMPARED = 8
"""Texts of one band that a text is compared with at most, so that the time grows with the number of texts."""


@dataclass(frozen=True)
class NearCopy:
    """A text that is nearly a copy of an earlier one."""

    text: int
    """Its index."""
    of: int
    """The index of the earlier text."""
    similarity: float
    """From 0.8 to 1."""


def near_copies(texts: Sequence[str], answers: Sequence[str] = ()) -> list[NearCopy]:
    """Finds the texts that are nearly copies of an earlier one, in order; each once, with the most similar one found.

    Args:
        texts: The texts.
        answers: The part of each text that must be similar, too, so that two questions that differ in a few words and have
            different answers are no copies; empty: only the texts are compared.
    """
    runs = [_runs(text) for text in texts]
    own_runs = [_runs(answer) or {answer.strip()} for answer in answers]  # without words, answers must be equal
    held = Counter(run for each in runs for run in each)
    limit = max(COMMON[0], COMMON[1] * len(texts))
    common = {run for run, count in held.items() if count > limit}
    kept = [each - common for each in runs]
    compared = [kept, own_runs] if answers else [kept]
    factors = np.random.default_rng(0).integers(1, 1 << 63, (_BANDS * _ROWS, 2), np.uint64) | np.uint64(1)
    seen: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    found = []
    for place, own in enumerate(kept):
        if not own:
            continue
        hashes = np.fromiter(own, np.uint64, len(own))
        mixed = hashes * factors[:, :1] + factors[:, 1:]  # modulo 2**64
        mixed ^= mixed >> np.uint64(31)
        least = (mixed * factors[:, :1]).min(axis=1).reshape(_BANDS, _ROWS)
        bands = [(number, band.tobytes()) for number, band in enumerate(least)]
        candidates = dict.fromkeys(other for band in bands for other in seen[band])
        similar = max(
            ((min(_similarity(each[place], each[other]) for each in compared), -other) for other in candidates),
            default=(0.0, 0),
        )
        if similar[0] >= SIMILAR:
            found.append(NearCopy(place, -similar[1], similar[0]))
            continue  # later copies are similar to the earlier text
        for band in bands:
            if len(seen[band]) < _COMPARED:
                seen[band].append(place)
    return found


def _runs(text: str) -> set[Any]:
    words = [zlib.crc32(word.encode()) for word in words_of(text)]
    starts = range(max(1, len(words) - RUN + 1))
    return {hash(tuple(words[start : start + RUN])) & 0xFFFF_FFFF_FFFF_FFFF for start in starts} if words else set()


def _similarity(one: set[Any], other: set[Any]) -> float:
    return len(one & other) / len(one | other)
