"""Plans packs: which requests share a forward pass, and which prefix they share with other packs.

Packs are planned once from the full list of requests; a pack is the unit of commit and resume. A prefix that several packs
share is run once and cached for all of them; within a pack, the rows share the rest through their trie.
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
"""Fewest tokens of a cached prefix: a shorter one is fed again with every pack, which costs less than its own pass."""
WORTH_A_PACK = 1024
"""Tokens that a separate pack must save when texts are generated: packs with fewer rows generate more slowly."""
_OPEN_PACKS = 32
"""Number of most recent packs that are searched for room."""
_BUDGETS = {"cpu": 512, "cuda": 4096}
"""Maximum tokens of a pack by device. It is recorded with every score: the same budget gives the same packs and bytes."""


def token_budget(device: str) -> int:
    """Returns the maximum tokens of a pack on a device; `auto` and other devices use the CPU's budget.

    Example:
        >>> token_budget("cuda:1"), token_budget("auto")
        (4096, 512)
    """
    return _BUDGETS.get(device.split(":")[0], _BUDGETS["cpu"])


@dataclass(frozen=True)
class Pack:
    """Requests that are run together."""

    items: tuple[Encoded, ...]
    way: Way
    path: tuple[Ids, ...] = ()
    """The prefix of all its rows that is cached, in segments that other packs share."""
    tokens: int = 0
    """Tokens fed after the path."""


def plan_padded(
    encoded: Sequence[Encoded], token_budget: int, max_rows: int | None = None, way: Way = "padded"
) -> list[Pack]:
    """Plans padded packs, longest requests first, each within the budget; a request is never split.

    Args:
        encoded: All requests of a task.
        token_budget: Most tokens of a pack, rows × longest row; a request with more gets its own pack.
        max_rows: Most rows in a pack; None for no limit.
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
    """Plans packs that share prefixes by token ids.

    Args:
        encoded: All requests of a task; all are scored, or all generate text.
        token_budget: Most tokens that a pack feeds after its path; a request with more gets its own pack. None for no
            limit.
        max_rows: Most rows (or texts to generate) in a pack; None for no limit.
        way: `tree` or `slots`.

    Returns:
        Every request once, packs with the same path next to each other; the same list always gives the same packs.
    """
    return _Tree(encoded, token_budget, max_rows, way).packs()


@dataclass(frozen=True)
class _Bundle:
    """Requests `low` to `high` − 1, neighbours in the tree that fit into one pack."""

    tokens: int
    rows: int
    low: int
    high: int


class _Tree:
    """The requests in the order of their token ids, so that those with a shared prefix are neighbours."""

    def __init__(self, encoded: Sequence[Encoded], token_budget: int | None, max_rows: int | None, way: Way) -> None:
        self.budget, self.max_rows, self.way = token_budget, max_rows, way
        found = sorted(((_prefix(item), item.index, item) for item in encoded), key=lambda entry: entry[:2])
        self.prefixes = [prefix for prefix, _, _ in found]
        self.items = [item for _, _, item in found]
        sizes = [size([row.ids for row in item.rows]) + len(item.prompt) for item in self.items]
        links = [0, *(shared(a, b) for a, b in itertools.pairwise(self.prefixes))]
        self.sizes = sizes
        self.fed = [0, *itertools.accumulate(total - link for total, link in zip(sizes, links, strict=True))]
        self.counts = [0, *itertools.accumulate(_rows(item) for item in self.items)]

    def packs(self) -> list[Pack]:
        bundles: list[_Bundle] = []
        packs = self._grow(0, len(self.items), (), 0, bundles) if self.items else []
        return packs + self._fill((), bundles)

    def _grow(self, low: int, high: int, path: tuple[Ids, ...], depth: int, bundles: list[_Bundle]) -> list[Pack]:
        """Plans the packs below one node; requests that fit into a pack with others of the same path go to `bundles`.

        Args:
            low: First request of the node.
            high: End of the node's requests, excluded.
            path: Cached segments before the node.
            depth: Tokens of these segments.
            bundles: Receives bundles of this path.
        """
        packs: list[Pack] = []
        opened: list[tuple[tuple[Ids, ...], list[_Bundle]]] = []
        while True:  # loops into the largest child and recurses into the others, so that recursion halves the requests
            bundle = self._bundle(low, high, depth)
            fits = high - low == 1 or self._fits(bundle.tokens, bundle.rows)
            common = shared(self.prefixes[low], self.prefixes[high - 1])
            if common - depth >= SHORTEST_SEGMENT and (not fits or self._pays(low, high, depth)):
                path, depth, bundles = (*path, self.prefixes[low][depth:common]), common, []
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
        """Whether texts to generate should get their own pack for their shared prefix.

        A packed tree feeds a shared prefix once anyway; in slots, each row has its own copy of what is not in the path.
        """
        common = shared(self.prefixes[low], self.prefixes[high - 1])
        return self.way == "slots" and (high - low - 1) * (common - depth) >= WORTH_A_PACK

    def _children(self, low: int, high: int, depth: int) -> list[tuple[int, int]]:
        """Splits the node's requests by their next token; a request without a next token is a child of its own."""
        bounds = [low]
        for at in range(low + 1, high):
            before, prefix = self.prefixes[at - 1], self.prefixes[at]
            if len(before) == depth or before[depth] != prefix[depth]:
                bounds.append(at)
        return list(itertools.pairwise([*bounds, high]))

    def _bundle(self, low: int, high: int, depth: int) -> _Bundle:
        tokens = self.sizes[low] - depth + self.fed[high] - self.fed[low + 1]
        return _Bundle(tokens, self.counts[high] - self.counts[low], low, high)

    def _fits(self, tokens: int, rows: int) -> bool:
        return (self.budget is None or tokens <= self.budget) and (self.max_rows is None or rows <= self.max_rows)

    def _fill(self, path: tuple[Ids, ...], bundles: Sequence[_Bundle]) -> list[Pack]:
        """Fills packs with bundles: largest first, into the first of the most recent packs that has room."""
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
            if self.way == "tree":  # in slots, prompts stay next to those with which they share most
                items.sort(key=lambda item: item.index)
            packs.append(Pack(tuple(items), self.way, path, tokens))
        return packs


def packs_done(packs: Sequence[Pack], done: Sequence[int]) -> int:
    """Counts the packs at the start of the plan whose samples are all on disk, in the order of the plan.

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
    """Counts the tokens fed by all packs; a segment of a path counts each time it is run."""
    total = 0
    path: tuple[Ids, ...] = ()
    for pack in packs:
        kept = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(path, pack.path, strict=False)))
        total += pack.tokens + sum(map(len, pack.path[kept:]))
        path = pack.path
    return total


def tokens_needed(encoded: Sequence[Encoded]) -> int:
    """Counts the tokens of all rows in full, as they are fed when rows are scored one at a time."""
    return sum(len(row.ids) for item in encoded for row in item.rows) + sum(len(item.prompt) for item in encoded)


def _prefix(item: Encoded) -> Ids:
    """The shared prefix of all rows of a request, up to the first position whose logits are used."""
    if not item.rows:
        return item.prompt[:-1]
    ids = [row.ids for row in item.rows]
    unscored = min(span.start for row in item.rows for span in row.spans)
    return ids[0][: min(unscored, shared(min(ids), max(ids)))]


def _width(item: Encoded) -> int:
    if item.request.mode == "generate":
        return len(item.prompt) + item.request.limit
    return max((len(row.ids) for row in item.rows), default=0)


def _rows(item: Encoded) -> int:
    return item.request.samples if item.request.mode == "generate" else len(item.rows)
