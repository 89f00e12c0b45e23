"""Scores requests in packed trees: no token is fed twice, there is no padding, and logits only where a token is scored.

A pack is one row at batch size 1. A prefix that it shares with other packs comes before it as cached keys and values; what
its own rows share is fed once (`harness.tokens.trie`). Sharing is by token ids, so it changes no score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from harness.engine.output_head import Scored, score_hidden, score_logits
from harness.engine.padded_scoring import head_numerics, summed_by_request
from harness.engine.prefix_cache import Prefixes
from harness.jobs import Raw
from harness.tokens.encode import ScoreRow
from harness.tokens.packs import Pack
from harness.tokens.trie import Trie, trie

_CHAIN, _LOGITS = 4, 1 << 26
"""A single row is fed in pieces of up to `_CHAIN` budgets, as long as a piece has at most `_LOGITS` logits."""


@torch.inference_mode()
def score_tree(prefixes: Prefixes, pack: Pack, *, token_budget: int) -> list[Raw]:
    """Scores every continuation of a pack, head and softmax in float32.

    Args:
        prefixes: The model and its cached prefixes.
        pack: Requests of mode `choose` or `text`.
        token_budget: Most tokens fed at a time; a pack with more is fed in pieces, each of which sees those before it.
    """
    cut = sum(map(len, pack.path))
    rows = [row for item in pack.items for row in item.rows]
    prefixes.enter(pack.path)
    has_choices = any(item.request.mode == "choose" for item in pack.items)
    together = pack.tokens <= token_budget or has_choices
    scored: list[tuple[float, bool]] = []
    for group in [rows] if together and rows else [[row] for row in rows]:  # windows of a text share nothing
        scored += _score_rows(prefixes, group, cut, token_budget, greedy=has_choices)
    return summed_by_request(pack.items, scored)


def _score_rows(
    prefixes: Prefixes, rows: Sequence[ScoreRow], cut: int, token_budget: int, *, greedy: bool
) -> list[tuple[float, bool]]:
    """Computes log-likelihood and greediness of every span of some rows, whose first `cut` tokens are cached."""
    tree = trie([row.ids[cut:] for row in rows])
    spans = [span for row in rows for span in row.spans]
    paths = [path for row, path in zip(rows, tree.paths, strict=True) for _ in row.spans]
    places = [
        path[span.start - cut + at] for span, path in zip(spans, paths, strict=True) for at in range(len(span.targets))
    ]
    targets = [target for span in spans for target in span.targets]
    scored = score_places(prefixes, tree, torch.tensor(places), torch.tensor(targets), token_budget, greedy=greedy)
    owner = torch.repeat_interleave(torch.tensor([len(span.targets) for span in spans]))
    totals = torch.zeros(len(spans), dtype=torch.float64).index_add_(0, owner, scored.loglikelihoods)
    missed = torch.zeros(len(spans), dtype=torch.long).index_add_(0, owner, (~scored.greedy).long())
    return list(zip(totals.tolist(), (missed == 0).tolist(), strict=True))


def score_places(
    prefixes: Prefixes, tree: Trie, places: Tensor, targets: Tensor, token_budget: int, *, greedy: bool = True
) -> Scored:
    """Feeds a tree and scores target tokens.

    Args:
        prefixes: The model, with the tree's prefix entered.
        tree: The tree.
        places: `[targets]` places in the tree whose logits predict the targets.
        targets: `[targets]` token ids.
        token_budget: Most tokens fed at a time.
        greedy: Whether to compute which targets are the most likely tokens.
    """
    wanted, which = places.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    head = prefixes.head
    if tree.is_chain:  # needs no mask, so only the memory of logits, where they are computed, limits its pieces
        most = _CHAIN * token_budget if head is not None else _LOGITS // prefixes.config.vocab_size
        token_budget = min(_CHAIN * token_budget, max(token_budget, most))
    cache = prefixes.cache() if prefixes.length or len(tree.tokens) > token_budget else None
    loglikelihoods = torch.zeros(len(targets), dtype=torch.float64)
    likeliest = torch.zeros(len(targets), dtype=torch.bool)
    with head_numerics(prefixes.model, "fp32") if head is None else nullcontext():
        for first, read in feed_tree(prefixes, tree, cache, wanted, token_budget, hidden=head is not None):
            mine = ((which >= first) & (which < first + len(read))).nonzero()[:, 0]
            score = score_logits if head is None else partial(score_hidden, head)
            found = score(read, which[mine] - first, targets[mine], greedy=greedy)
            loglikelihoods[mine], likeliest[mine] = found.loglikelihoods, found.greedy
            del read  # frees the memory before the next piece is computed
    return Scored(loglikelihoods, likeliest)


def feed_tree(
    prefixes: Prefixes,
    tree: Trie,
    cache: DynamicCache | None,
    wanted: Tensor,
    token_budget: int,
    *,
    hidden: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Feeds a tree after the current prefix, in pieces.

    Args:
        prefixes: The model, with the prefix entered.
        tree: The tree.
        cache: Receives the keys and values; None if there is no prefix and only one piece.
        wanted: `[wanted]` places of the tree, ascending, whose logits are needed.
        token_budget: Most tokens of a piece.
        hidden: Yield the input of the output head instead of logits, where the model ends in its head.

    Yields:
        The index of the piece's first wanted place, and `[wanted in this piece, vocabulary]` logits, or
        `[wanted in this piece, width]` hidden states.
    """
    count = len(tree.tokens)
    positions = torch.tensor(tree.depths) + prefixes.length
    for start in range(0, count, token_budget):
        stop = min(start + token_budget, count)
        first, after = (int(n) for n in torch.searchsorted(wanted, torch.tensor([start, stop])))
        here = wanted[first:after] - start if after > first else torch.tensor([stop - start - 1])
        visible = prefixes.visible(tree, start, stop)
        read = prefixes.feed(tree.tokens[start:stop], positions[start:stop], visible, cache, here, hidden=hidden)
        if after > first:
            yield first, read
        del read
