"""Packs: which requests share a forward pass, and which beginning they share with other packs.

Planned once from the full list; a pack is the unit of commit and resume. A beginning that several packs share is run once,
and its keys and values serve them all; within a pack, the trie of its rows shares the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.tokens.encode import Encoded
from harness.tokens.trie import Ids, shared, size

Way = Literal["tree", "slots", "padded", "plain"]
"""How a pack is run: see `harness.engine.runner`."""

SHORTEST_SEGMENT = 16
"""A beginning of fewer tokens is fed again with every pack: a forward pass of its own costs more."""
WORTH_A_PACK = 1024
"""Tokens to be saved for which texts are written apart from others: fewer rows side by side are slower ones."""
_OPEN_PACKS = 32


@dataclass(frozen=True)
class Pack:
    """Requests that are run together."""

    items: tuple[Encoded, ...]
    way: Way
    path: tuple[Ids, ...] = ()
    """The beginning of all its rows that is run before, in segments that other packs begin with too."""
    tokens: int = 0
    """What is fed after the path."""


def plan_padded(
    encoded: Sequence[Encoded], token_budget: int, max_rows: int | None = None, way: Way = "padded"
) -> list[Pack]:
    """Requests to write or to score in packs, longest first, padded size within the budget; a request is never split.

    Args:
        encoded: All requests of a task.
        token_budget: Rows × longest row of a pack; a request above it gets a pack of its own.
        max_rows: At most so many rows in a pack.
        way: `padded` or `plain`.

    Returns:
        Every request once; the same list always gives the same packs.
    """
    packs: list[list[Encoded]] = []
    rows = width = 0
    for item in sorted(encoded, key=lambda e: (-_width(e), e.index)):
        count = _rows(item)
        fits = (rows + count) * max(width, _width(item)) <= token_budget
        if not packs or not fits or (max_rows is not None and rows + count > max_rows):
            packs.append([])
            rows = width = 0
        packs[-1].append(item)
        rows, width = rows + count, max(width, _width(item))
    return [Pack(tuple(pack), way, tokens=sum(map(_rows, pack)) * max(map(_width, pack))) for pack in packs]


def plan_tree(
    encoded: Sequence[Encoded], token_budget: int | None, max_rows: int | None = None, way: Way = "tree"
) -> list[Pack]:
    """Requests in packs that share their beginnings by token ids.

    Args:
        encoded: All requests of a task, all to be scored or all to be written.
        token_budget: Tokens that a pack feeds after its path; a request above it gets a pack of its own. None: any number.
        max_rows: At most so many rows (texts to write) in a pack.
        way: `tree` or `slots`.

    Returns:
        Every request once, packs with the same path beside each other; the same list always gives the same packs.
    """
    return _Tree(encoded, token_budget, max_rows, way).packs()


@dataclass(frozen=True)
class _Bundle:
    """Neighbours in the tree that fit a pack together."""

    tokens: int
    rows: int
    low: int
    high: int


class _Tree:
    """The requests in the order of their token ids: what begins alike stands side by side."""

    def __init__(self, encoded: Sequence[Encoded], token_budget: int | None, max_rows: int | None, way: Way) -> None:
        self.budget, self.max_rows, self.way = token_budget, max_rows, way
        found = sorted(((_head(item), item.index, item) for item in encoded), key=lambda entry: entry[:2])
        self.heads = [head for head, _, _ in found]
        self.items = [item for _, _, item in found]
        sizes = [size([row.ids for row in item.rows]) + len(item.prompt) for item in self.items]
        links = [0, *(shared(a, b) for a, b in itertools.pairwise(self.heads))]
        self.sizes = sizes
        self.fed = [0, *itertools.accumulate(total - link for total, link in zip(sizes, links, strict=True))]
        self.counts = [0, *itertools.accumulate(_rows(item) for item in self.items)]

    def packs(self) -> list[Pack]:
        bundles: list[_Bundle] = []
        packs = self._grow(0, len(self.items), (), 0, bundles) if self.items else []
        return packs + self._fill((), bundles)

    def _grow(self, low: int, high: int, path: tuple[Ids, ...], depth: int, bundles: list[_Bundle]) -> list[Pack]:
        """Packs below one node; what fits into a pack with others of the same path goes to `bundles`.

        Args:
            low: First request of the node.
            high: The one after its last.
            path: Segments run already.
            depth: Their tokens.
            bundles: Of this path.
        """
        packs: list[Pack] = []
        opened: list[tuple[tuple[Ids, ...], list[_Bundle]]] = []
        while True:  # into the largest child; recursion into the others halves the requests each time
            bundle = self._bundle(low, high, depth)
            fits = high - low == 1 or self._fits(bundle.tokens, bundle.rows)
            common = shared(self.heads[low], self.heads[high - 1])
            if common - depth >= SHORTEST_SEGMENT and (not fits or self._pays(low, high, depth)):
                path, depth, bundles = (*path, self.heads[low][depth:common]), common, []
                opened.append((path, bundles))
                continue
            children = self._children(low, high, common)
            largest = max(children, key=lambda child: child[1] - child[0])
            if fits and not (len(children) > 1 and self._pays(*largest, depth)):
                bundles.append(bundle)
                break
            for child in children:
                if child != largest:
                    packs += self._grow(*child, path, depth, bundles)
            low, high = largest
        for path, bundles in reversed(opened):
            packs += self._fill(path, bundles)
        return packs

    def _pays(self, low: int, high: int, depth: int) -> bool:
        """Whether rows that are written should have a pack of their own for what they begin with.

        Within a pack of trees what is shared is fed once anyway; rows in slots carry it along, each for itself.
        """
        common = shared(self.heads[low], self.heads[high - 1])
        return self.way == "slots" and (high - low - 1) * (common - depth) >= WORTH_A_PACK

    def _children(self, low: int, high: int, depth: int) -> list[tuple[int, int]]:
        """The node's requests by their next token; one that has none stands alone."""
        bounds = [low]
        for at in range(low + 1, high):
            before, head = self.heads[at - 1], self.heads[at]
            if len(before) == depth or before[depth] != head[depth]:
                bounds.append(at)
        return list(itertools.pairwise([*bounds, high]))

    def _bundle(self, low: int, high: int, depth: int) -> _Bundle:
        tokens = self.sizes[low] - depth + self.fed[high] - self.fed[low + 1]
        return _Bundle(tokens, self.counts[high] - self.counts[low], low, high)

    def _fits(self, tokens: int, rows: int) -> bool:
        return (self.budget is None or tokens <= self.budget) and (self.max_rows is None or rows <= self.max_rows)

    def _fill(self, path: tuple[Ids, ...], bundles: Sequence[_Bundle]) -> list[Pack]:
        """First fit, largest first, among the packs opened last."""
        filled: list[list[_Bundle]] = []
        room: list[tuple[int, int]] = []
        for bundle in sorted(bundles, key=lambda each: (-each.tokens, each.low)):
            for number in range(max(0, len(filled) - _OPEN_PACKS), len(filled)):
                tokens, rows = room[number]
                if self._fits(tokens + bundle.tokens, rows + bundle.rows):
                    filled[number].append(bundle)
                    room[number] = tokens + bundle.tokens, rows + bundle.rows
                    break
            else:
                filled.append([bundle])
                room.append((bundle.tokens, bundle.rows))
        packs = []
        for pack, (tokens, _) in zip(filled, room, strict=True):
            items = [item for bundle in pack for item in self.items[bundle.low : bundle.high]]
            if self.way == "tree":  # prompts to be written to stay beside those that they share most with
                items.sort(key=lambda item: item.index)
            packs.append(Pack(tuple(items), self.way, path, tokens))
        return packs


def kept_prefix(packs: Sequence[Pack], done: Sequence[int]) -> int:
    """How many packs at the front of the plan are wholly on disk, in the plan's order.

    Args:
        packs: The plan.
        done: Indices of the samples on disk, in the order of the file.
    """
    at = 0
    for number, pack in enumerate(packs):
        indices = [item.index for item in pack.items]
        if list(done[at : at + len(indices)]) != indices:
            return number
        at += len(indices)
    return len(packs)


def tokens_fed(packs: Sequence[Pack]) -> int:
    """Tokens of all packs, each segment of a path counted each time it is run."""
    total = 0
    path: tuple[Ids, ...] = ()
    for pack in packs:
        kept = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(path, pack.path, strict=False)))
        total += pack.tokens + sum(map(len, pack.path[kept:]))
        path = pack.path
    return total


def tokens_needed(encoded: Sequence[Encoded]) -> int:
    """Tokens of all requests, every row counted whole: what scoring one row at a time feeds."""
    return sum(len(row.ids) for item in encoded for row in item.rows) + sum(len(item.prompt) for item in encoded)


def _head(item: Encoded) -> Ids:
    """What all rows of a request begin with, before the first position whose logits are read."""
    if not item.rows:
        return item.prompt[:-1]
    ids = [row.ids for row in item.rows]
    unscored = min(span.start for row in item.rows for span in row.spans)
    return ids[0][: min(unscored, shared(min(ids), max(ids)))]


def _width(item: Encoded) -> int:
    if item.request.mode == "generate":
        return len(item.prompt) + item.request.max_tokens
    return max((len(row.ids) for row in item.rows), default=0)


def _rows(item: Encoded) -> int:
    return item.request.samples if item.request.mode == "generate" else len(item.rows)
