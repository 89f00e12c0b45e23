"""Rows that begin alike, as one sequence: every shared token is fed once, and each token sees its own past alone.

The rows' tokens are laid out depth first. A token's descendants then stand right behind it, so one number a token, where its
descendants end, says all there is to say about who sees it.

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
    """How many tokens of its row stand before each."""
    ends: list[int]
    """Token j is seen by the tokens j … ends[j] − 1."""
    paths: list[list[int]]
    """For each row, the places of its tokens."""

    @property
    def is_chain(self) -> bool:
        """Whether it is a single row: every token sees all before it."""
        return not self.depths or self.depths[-1] == len(self.tokens) - 1


def trie(rows: Sequence[Ids]) -> Trie:
    """Lays rows out depth first; equal beginnings become one."""
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
    """Tokens of the trie of some rows."""
    ordered = sorted(rows)
    return sum(len(row) - shared(before, row) for before, row in zip([(), *ordered], ordered, strict=False))


def shared(a: Ids, b: Ids) -> int:
    """How many tokens two rows have in common at their beginning; compares slices, which is quick on long rows.

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
