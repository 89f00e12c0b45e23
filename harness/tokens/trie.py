"""Merges rows with shared prefixes into one sequence (a prefix tree): every shared token is fed to the model once.

The tokens of the rows are laid out depth first. The descendants of a token then follow it directly, so one number for each
token, the end of its descendants, says which tokens see it.

    >>> tree = trie([(7, 8, 1), (7, 8, 2), (9,)])
    >>> tree.tokens, tree.ends, tree.paths[1]
    ([7, 8, 1, 2, 9], [4, 4, 3, 4, 5], [0, 1, 3])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Trie:
    """Rows as one sequence."""

    tokens: list[int]
    depths: list[int]
    """For each token, the number of tokens before it in its row."""
    ends: list[int]
    """Token j is seen by the tokens j … ends[j] − 1."""
    paths: list[list[int]]
    """For each row, the places of its tokens in the sequence."""

    @property
    def is_chain(self) -> bool:
        """Whether the tree has no branches, so that every token sees all tokens before it."""
        return not self.depths or self.depths[-1] == len(self.tokens) - 1


def trie(rows: Sequence[Ids]) -> Trie:
    """Lays rows out depth first; shared prefixes are merged."""
    tokens: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    paths: list[list[int]] = [[] for _ in rows]
    path: list[int] = []
    before: Ids = ()
    for number in sorted(range(len(rows)), key=rows.__getitem__):
        row = rows[number]
        kept = shared(before, row)
        for place in path[kept:]:
            ends[place] = len(tokens)
        path = [*path[:kept], *range(len(tokens), len(tokens) + len(row) - kept)]
        tokens.extend(row[kept:])
        depths.extend(range(kept, len(row)))
        ends.extend([0] * (len(row) - kept))
        paths[number], before = path, row
    for place in path:
        ends[place] = len(tokens)
    return Trie(tokens, depths, ends, paths)


def size(rows: Sequence[Ids]) -> int:
    """Number of tokens in the trie of some rows."""
    ordered = sorted(rows)
    return sum(len(row) - shared(before, row) for before, row in zip([(), *ordered], ordered, strict=False))


def shared(a: Ids, b: Ids) -> int:
    """Length of the longest common prefix of two rows; compares slices, which is fast on long rows.

    Example:
        >>> shared((1, 2, 3), (1, 2, 4, 5))
        2
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
