"""Does the fast path give this model's own logits? Tried on a few random tokens before it is relied on.

A mask that a layer does not heed, a past that is no list of keys and values, positions that mean something else: all show
as logits that are not those of the plain forward pass. Then the model is scored row by row, and the run says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from harness.engine.attention import Unsupported
from harness.engine.oracle import forward
from harness.engine.prefix_cache import Prefixes
from harness.engine.slot_generation import Slab, read, step
from harness.engine.tree_scoring import feed_tree
from harness.tokens.trie import Ids, trie

FAILURES = (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, NotImplementedError)
"""How a model that is tried with masks or positions it does not take may fail."""
_PATH, _TRUNK, _BRANCHES, _ALONE = (9, 5), 6, (4, 7), (5, 3)
"""Tokens of what is tried in trees: segments before, what two rows share, the rest of each, rows that share nothing."""
_LONGEST = sum(_PATH) + _TRUNK + max(_BRANCHES)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.06}
"""Largest distance from the plain logits, relative to their spread; a mask that is not heeded shows as 0.3 or more."""


def tree_fault(model: Any, prefixes: Prefixes, *, seed: int = 0) -> str | None:
    """Why packed trees are not for this model; None when they give what whole rows give.

    Args:
        model: The model as variants are scored with it.
        prefixes: The same, for the fast path.
        seed: Of the tokens tried.
    """
    if prefixes.window is not None and prefixes.window <= prefixes.learned_tokens + _LONGEST:
        prefixes.by_block = False  # rows that outgrow a window are given masks: blocks would go untried
    fault = _tried(model, prefixes, lambda: _tree_distance(model, prefixes, seed))
    if fault is not None and prefixes.by_block:
        prefixes.by_block = False
        fault = _tried(model, prefixes, lambda: _tree_distance(model, prefixes, seed))
    return fault


def slots_fault(model: Any, prefixes: Prefixes, *, seed: int = 0) -> str | None:
    """Why writing by slots is not for this model; None when a step gives what whole rows give."""
    return _tried(model, prefixes, lambda: _slots_distance(model, prefixes, seed))


def within_rounding(model: Any, distance: float) -> bool:
    """Whether logits so far apart, relative to their spread, are the same but for rounding in the model's precision."""
    return distance <= TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])


def _tried(model: Any, prefixes: Prefixes, distance_of: Callable[[], float]) -> str | None:
    try:
        distance = distance_of()
    except Unsupported as fault:
        return str(fault)
    except FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"it fails with {type(error).__name__}"
    finally:
        prefixes.enter(())
    return None if within_rounding(model, distance) else f"logits would differ by {distance:.1e} of their spread"


def _distance(ours: Tensor, whole: Tensor) -> float:
    """Largest distance of a position's logits, relative to the spread of its row's; infinite where one is NaN."""
    ours, whole = ours.float(), whole.float()
    spread = whole - whole.mean(-1, keepdim=True)
    distance = float((ours - whole).norm(dim=-1).max() / spread.norm(dim=-1).max())
    return distance if distance == distance else math.inf


@torch.inference_mode()
def _slots_distance(model: Any, prefixes: Prefixes, seed: int) -> float:
    """Largest distance after a step of rows of several lengths behind a shared beginning."""
    generator = torch.Generator().manual_seed(seed)
    beginning, *rows = [
        tuple(torch.randint(0, prefixes.config.vocab_size, (count,), generator=generator).tolist())
        for count in (9, 6, 3, 8)
    ]
    prefixes.enter((beginning,))
    slab = Slab(prefixes.contents, len(rows), 12)
    read(prefixes, slab, [row[:-1] for row in rows], token_budget=7)
    logits = step(prefixes, slab, [row[-1] for row in rows])
    return max(_distance(ours, forward(model, [*beginning, *row])[-1]) for ours, row in zip(logits, rows, strict=True))


@torch.inference_mode()
def _tree_distance(model: Any, prefixes: Prefixes, seed: int) -> float:
    """Largest distance over rows of a tree behind two segments, fed in two pieces."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = prefixes.config.vocab_size

    def draw(count: int) -> Ids:
        return tuple(torch.randint(0, vocabulary, (count,), generator=generator).tolist())

    path = tuple(map(draw, _PATH))
    trunk = draw(_TRUNK)
    rows = [*(trunk + draw(count) for count in _BRANCHES), *map(draw, _ALONE)]
    prefixes.enter(path)
    tree = trie(rows)
    everywhere = torch.arange(len(tree.tokens))
    pieces = [piece for _, piece in feed_tree(prefixes, tree, prefixes.cache(), everywhere, len(everywhere) // 2 + 1)]
    packed = torch.cat(pieces)
    return max(
        _distance(packed[places], forward(model, [*chain.from_iterable(path), *row])[-len(row) :])
        for row, places in zip(rows, tree.paths, strict=True)
    )
