"""Checks on a few random tokens whether the fast path gives a model's own logits, before the fast path is used.

A layer that ignores a mask, a cache without keys and values for each token, positions with another meaning: all of these
show as logits that differ from those of a plain forward pass. The model then runs in another way, and the run says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from harness.engine.attention import Unsupported
from harness.engine.oracle import forward
from harness.engine.padded_generation import left_padded
from harness.engine.padded_scoring import needed_logits
from harness.engine.prefix_cache import Prefixes
from harness.engine.slot_cache import SlotCache, read, step
from harness.engine.tree_scoring import feed_tree
from harness.errors import is_out_of_memory
from harness.tokens.trie import Ids, trie

FAILURES = (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, NotImplementedError)
"""Errors of models that get masks or positions which they do not support."""
_PATH, _TRUNK, _BRANCHES, _ALONE = (9, 5), 6, (4, 7), (5, 3)
"""Lengths in tokens: prefix segments, what two rows share, the rest of these rows, and two rows that share nothing."""
_LONGEST = sum(_PATH) + _TRUNK + max(_BRANCHES)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.06}
"""Largest allowed distance from the plain logits, relative to their spread; an ignored mask gives 0.3 or more."""


def tree_fault(model: Any, prefixes: Prefixes, *, seed: int = 0) -> str | None:
    """Tries packed trees on a model, with block attention first and under one mask if that fails.

    Args:
        model: The variant's model.
        prefixes: The same model, for the fast path; its `by_block` is set to what works.
        seed: Seed of the random tokens.

    Returns:
        The reason why the model does not support packed trees; None if it does.
    """
    if prefixes.window is not None and prefixes.window <= prefixes.learned_tokens + _LONGEST:
        prefixes.by_block = False  # rows that exceed a window get masks, so the check would not reach the blocks
    fault = _checked(model, lambda: _tree_distance(model, prefixes, seed), prefixes)
    if fault is not None and prefixes.by_block:
        prefixes.by_block = False
        fault = _checked(model, lambda: _tree_distance(model, prefixes, seed), prefixes)
    return fault


def slots_fault(model: Any, prefixes: Prefixes, *, seed: int = 0) -> str | None:
    """Tries a step of generation in slots; returns the reason why the model does not support it, None if it does."""
    return _checked(model, lambda: _slots_distance(model, prefixes, seed), prefixes)


def batch_fault(model: Any, *, seed: int = 0) -> str | None:
    """Tries a step of generation in a left-padded batch that a row has left; returns why the model does not support it.

    A recurrent state has no room for padding, and not every cache can drop a row.
    """
    return _checked(model, lambda: _batch_distance(model, seed))


@torch.inference_mode()
def writer_fault(model: Any, prompt: Sequence[int], ids: Sequence[int], logprobs: Sequence[float]) -> str | None:
    """Compares the log-probabilities of another program, for tokens that it has generated, with the model's own.

    Args:
        model: The variant's model.
        prompt: Token ids of the prompt.
        ids: The generated tokens.
        logprobs: Their log-probabilities as the other program gives them.

    Returns:
        The reason why its texts are not those of the model; None if they are.
    """
    row = torch.tensor([[*prompt, *ids[:-1]]], device=model.device)
    wanted = torch.zeros_like(row, dtype=torch.bool)
    wanted[:, -len(ids) :] = True
    logits = needed_logits(model, row, wanted, "fp32")
    ours = logits.log_softmax(-1).cpu()[torch.arange(len(ids)), torch.tensor(ids)]
    distance = float((ours - torch.tensor(logprobs)).abs().max() / logits.std(-1).max())
    if within_rounding(model, distance):  # false for NaN
        return None
    return f"its log-probabilities differ by {distance:.1e} of the spread of the logits"


def within_rounding(model: Any, distance: float) -> bool:
    """Whether rounding in the model's precision explains a distance of logits, relative to their spread."""
    return distance <= TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])


def _checked(model: Any, distance_of: Callable[[], float], prefixes: Prefixes | None = None) -> str | None:
    try:
        distance = distance_of()
    except Unsupported as fault:
        return str(fault)
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        return f"it fails with {type(error).__name__}"
    finally:
        if prefixes is not None:
            prefixes.enter(())
    return None if within_rounding(model, distance) else f"logits would differ by {distance:.1e} of their spread"


def _distance(ours: Tensor, whole: Tensor) -> float:
    """Largest distance between the logits of a position, relative to the row's largest spread; infinite for NaN."""
    ours, whole = ours.float(), whole.float()
    spread = whole - whole.mean(-1, keepdim=True)
    distance = float((ours - whole).norm(dim=-1).max() / spread.norm(dim=-1).max())
    return distance if distance == distance else math.inf


@torch.inference_mode()
def _slots_distance(model: Any, prefixes: Prefixes, seed: int) -> float:
    """Largest distance after one step of rows with different lengths after a shared prefix."""
    generator = torch.Generator().manual_seed(seed)
    prefix, *rows = [
        tuple(torch.randint(0, prefixes.config.vocab_size, (count,), generator=generator).tolist())
        for count in (9, 6, 3, 8)
    ]
    prefixes.enter((prefix,))
    slot_cache = SlotCache(prefixes.contents, len(rows), 12)
    read(prefixes, slot_cache, [row[:-1] for row in rows], token_budget=7)
    logits = step(prefixes, slot_cache, [row[-1] for row in rows])
    return max(_distance(ours, forward(model, [*prefix, *row], 1)[-1]) for ours, row in zip(logits, rows, strict=True))


@torch.inference_mode()
def _batch_distance(model: Any, seed: int) -> float:
    """Largest distance after one step of two rows of unlike lengths, the third having ended."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = model.config.get_text_config().vocab_size
    rows = [torch.randint(0, vocabulary, (count,), generator=generator).tolist() for count in (9, 4, 6)]
    ids, mask = (tensor.to(model.device) for tensor in left_padded([row[:-1] for row in rows]))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True).past_key_values
    cache.batch_select_indices(torch.tensor([0, 1], device=model.device))
    mask = torch.cat([mask[:2], torch.ones_like(mask[:2, :1])], 1)
    logits = model(
        input_ids=torch.tensor([[row[-1]] for row in rows[:2]], device=model.device),
        attention_mask=mask,
        position_ids=mask.cumsum(-1)[:, -1:] - 1,
        past_key_values=cache,
        use_cache=True,
    ).logits[:, -1]
    return max(_distance(ours, forward(model, row)[-1]) for ours, row in zip(logits, rows, strict=False))


@torch.inference_mode()
def _tree_distance(model: Any, prefixes: Prefixes, seed: int) -> float:
    """Largest distance over the rows of a tree after a prefix of two segments, fed in two pieces."""
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
        _distance(packed[places], forward(model, [*chain.from_iterable(path), *row], len(row)))
        for row, places in zip(rows, tree.paths, strict=True)
    )
