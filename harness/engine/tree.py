"""Log-likelihoods by packed trees: no token twice, no padding, logits only where something is scored.

A pack is one row of batch 1: the beginning that other packs share stands before it as keys and values, and what its own
rows share is fed once (`harness.engine.trie`). Sharing is by token ids, so it changes no score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from harness.engine.encode import Encoded, ScoreRow, Span
from harness.engine.plan import Pack
from harness.engine.prefix import Prefixes
from harness.engine.score import head_numerics
from harness.engine.trie import Trie, trie
from harness.jobs import Raw

_CHAIN, _LOGITS = 4, 1 << 26
"""A single row is fed in pieces of up to so many budgets, as long as its logits are no more numbers than this."""
_ROWS_AT_ONCE = 64
"""Scored positions whose logits are reduced together: what is kept of a [vocabulary] row is two numbers."""


@dataclass(frozen=True)
class Scored:
    """What was read off the model, for each token to score."""

    loglikelihoods: Tensor
    """`[targets]`, float64."""
    greedy: Tensor
    """`[targets]`, bool: whether it is the likeliest."""


@torch.inference_mode()
def score_tree(prefixes: Prefixes, pack: Pack, *, token_budget: int) -> list[Raw]:
    """Log-likelihood and greediness of every continuation of a pack, head and softmax in float32.

    Args:
        prefixes: The model, and the beginnings it has run.
        pack: Requests of mode `choose` or `text`.
        token_budget: A pack that feeds more is fed in pieces of so many tokens, each seeing those before.
    """
    cut = sum(map(len, pack.path))
    rows = [row for item in pack.items for row in item.rows]
    prefixes.enter(pack.path)
    together = pack.tokens <= token_budget or pack.items[0].request.mode != "text"
    totals: list[float] = []
    greedy: list[bool] = []
    for group in [rows] if together and rows else [[row] for row in rows]:  # windows of a text share nothing
        found = _score_rows(prefixes, group, cut, token_budget)
        totals += found[0]
        greedy += found[1]
    raws, at = [], 0
    for item in pack.items:
        own = [span for row in item.rows for span in row.spans]
        end = at + len(own)
        raws.append(_raw(item, own, totals[at:end], greedy[at:end]))
        at = end
    return raws


def _score_rows(
    prefixes: Prefixes, rows: Sequence[ScoreRow], cut: int, token_budget: int
) -> tuple[list[float], list[bool]]:
    """Log-likelihood and greediness of every span of some rows, of which `cut` tokens were run before."""
    tree = trie([row.ids[cut:] for row in rows])
    spans = [span for row in rows for span in row.spans]
    paths = [path for row, path in zip(rows, tree.paths, strict=True) for _ in row.spans]
    places = [
        path[span.start - cut + at] for span, path in zip(spans, paths, strict=True) for at in range(len(span.targets))
    ]
    targets = [target for span in spans for target in span.targets]
    scored = score_places(prefixes, tree, torch.tensor(places), torch.tensor(targets), token_budget)
    owner = torch.repeat_interleave(torch.tensor([len(span.targets) for span in spans]))
    totals = torch.zeros(len(spans), dtype=torch.float64).index_add_(0, owner, scored.loglikelihoods)
    missed = torch.zeros(len(spans), dtype=torch.long).index_add_(0, owner, (~scored.greedy).long())
    return totals.tolist(), (missed == 0).tolist()


def score_places(prefixes: Prefixes, tree: Trie, places: Tensor, targets: Tensor, token_budget: int) -> Scored:
    """Feeds a tree and scores tokens in it.

    Args:
        prefixes: The model, its beginning entered.
        tree: What is fed.
        places: `[targets]` places in the tree whose logits predict the targets.
        targets: `[targets]` token ids.
        token_budget: Tokens fed at a time.
    """
    wanted, which = places.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    if tree.is_chain:  # needs no mask, and logits alone set a limit to its pieces
        token_budget = min(_CHAIN * token_budget, max(token_budget, _LOGITS // prefixes.config.vocab_size))
    cache = prefixes.cache() if prefixes.length or len(tree.tokens) > token_budget else None
    loglikelihoods = torch.zeros(len(targets), dtype=torch.float64)
    greedy = torch.zeros(len(targets), dtype=torch.bool)
    with head_numerics(prefixes.model, "fp32"):
        for first, logits in feed_tree(prefixes, tree, cache, wanted, token_budget):
            mine = ((which >= first) & (which < first + len(logits))).nonzero()[:, 0]
            found = _reduce(logits, which[mine] - first, targets[mine])
            loglikelihoods[mine], greedy[mine] = found.loglikelihoods, found.greedy
            del logits  # before those of the next piece are made
    return Scored(loglikelihoods, greedy)


def feed_tree(
    prefixes: Prefixes, tree: Trie, cache: DynamicCache | None, wanted: Tensor, token_budget: int
) -> Iterator[tuple[int, Tensor]]:
    """Feeds a tree behind the current beginning, in pieces.

    Args:
        prefixes: The model, the beginning entered.
        tree: What is fed.
        cache: Takes the keys and values; None where nothing comes before and one piece is all.
        wanted: `[wanted]` places of the tree, ascending, whose logits are given.
        token_budget: Tokens of a piece.

    Yields:
        How many of the wanted places came before, and `[some, vocabulary]` logits of the next ones.
    """
    count = len(tree.tokens)
    ends, index = torch.tensor(tree.ends), torch.arange(count)
    positions = torch.tensor(tree.depths) + prefixes.length
    for start in range(0, count, token_budget):
        stop = min(start + token_budget, count)
        visible = None
        if not tree.is_chain:
            new, fed = index[start:stop, None], index[None, :stop]
            seen = (fed <= new) & (new < ends[None, :stop])
            visible = prefixes.visible(seen, positions[start:stop], positions[:start])
        first, after = (int(n) for n in torch.searchsorted(wanted, torch.tensor([start, stop])))
        here = wanted[first:after] - start if after > first else torch.tensor([stop - start - 1])
        logits = prefixes.feed(tree.tokens[start:stop], positions[start:stop], visible, cache, here)
        if after > first:
            yield first, logits
        del logits


def _reduce(logits: Tensor, which: Tensor, targets: Tensor) -> Scored:
    """Log-likelihoods of targets, a few rows of logits in float32 at a time.

    Args:
        logits: `[rows, vocabulary]`.
        which: `[targets]`, the row of each.
        targets: `[targets]`.
    """
    which, targets = which.to(logits.device), targets.to(logits.device)
    taken = logits[which, targets].double()
    normalisers, best = [], []
    for start in range(0, len(logits), _ROWS_AT_ONCE):
        rows = logits[start : start + _ROWS_AT_ONCE].float()
        normalisers.append(rows.logsumexp(-1))
        best.append(rows.argmax(-1))
    loglikelihoods = taken - torch.cat(normalisers).double()[which]
    return Scored(loglikelihoods.cpu(), (torch.cat(best)[which] == targets).cpu())


def _raw(item: Encoded, spans: Sequence[Span], totals: Sequence[float], greedy: Sequence[bool]) -> Raw:
    """Sums over the spans of each continuation."""
    choices = len(item.request.continuations)
    sums: list[float] = [0.0] * choices
    all_greedy = [True] * choices
    for span, total, is_greedy in zip(spans, totals, greedy, strict=True):
        sums[span.choice] += total
        all_greedy[span.choice] &= is_greedy
    tokens = sum(len(span.targets) for span in spans)
    options: dict[str, Any] = {"loglikelihoods": tuple(sums), "is_greedy": tuple(all_greedy)}
    return Raw(item.index, item.prompt_tokens, item.truncated, tokens, **options)
