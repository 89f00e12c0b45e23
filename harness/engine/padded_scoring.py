"""Scores requests in right-padded packs: logits only where a token is scored, softmax in float32.

Right padding needs no mask: attention is causal, and pads come after every position whose logits are used.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine.finite import NotFinite
from harness.engine.output_head import Scored, float32_product, replaced_forward, score_logits
from harness.jobs import Raw
from harness.models.reward_head import inner_model
from harness.tokens.encode import Encoded, ScoreRow, Span

_VOCABULARY_CHUNK = 16384
"""Rows of the output head that are in float32 at the same time, on CPU."""
_PAD = 0


@torch.inference_mode()
def score_pack(model: Any, pack: Sequence[Encoded], *, token_budget: int, numerics: str) -> list[Raw]:
    """Computes the log-likelihood of every continuation of a pack, and whether greedy decoding would generate it.

    Args:
        model: A causal language model, or a PEFT model around one.
        pack: Requests of mode `choose` or `text`.
        token_budget: Most tokens of a batch, padding included; a pack with more is split.
        numerics: `fp32` (head and softmax in float32) or `lm-eval` (all in the model's dtype).
    """
    rows = [row for item in pack for row in item.rows]
    scored: list[tuple[float, bool]] = []
    for batch in _batches(rows, token_budget):
        scored += _score_rows(model, batch, numerics)
    return summed_by_request(pack, scored)


def summed_by_request(items: Sequence[Encoded], scored: Sequence[tuple[float, bool]]) -> list[Raw]:
    """The result of each request, in order.

    Args:
        items: The requests.
        scored: Log-likelihood and greediness of all their spans, in the order of their rows.
    """
    at, raws = 0, []
    for item in items:
        spans = [span for row in item.rows for span in row.spans]
        found = scored[at : at + len(spans)]
        raws.append(summed(item, spans, [total for total, _ in found], [greedy for _, greedy in found]))
        at += len(spans)
    return raws


def summed(item: Encoded, spans: Sequence[Span], totals: Sequence[float], greedy: Sequence[bool]) -> Raw:
    """The result of a request: sums over the spans of each continuation.

    Args:
        item: The request.
        spans: All its spans, in the order of its rows.
        totals: The log-likelihood of each span.
        greedy: Whether greedy decoding would generate each span; the results of texts leave it out.

    Raises:
        NotFinite: A log-likelihood is NaN or infinite.
    """
    rows = [row for row in item.rows for _ in row.spans]
    for row, total in zip(rows, totals, strict=True):
        if not math.isfinite(total):
            raise NotFinite(row.ids)
    choices = len(item.request.continuations)
    sums, all_greedy = [0.0] * choices, [True] * choices
    for span, total, is_greedy in zip(spans, totals, greedy, strict=True):
        sums[span.choice] += total
        all_greedy[span.choice] &= is_greedy
    return Raw(
        item.index,
        item.prompt_tokens,
        item.truncated,
        sum(len(span.targets) for span in spans),
        loglikelihoods=tuple(sums),
        is_greedy=tuple(all_greedy) if item.request.mode == "choose" else (),
    )


def _score_rows(model: Any, rows: Sequence[ScoreRow], numerics: str) -> list[tuple[float, bool]]:
    """Computes log-likelihood and greediness of every span of some rows."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), _PAD)
    wanted = torch.zeros(len(rows), width, dtype=torch.bool)
    spans = [(number, span) for number, row in enumerate(rows) for span in row.spans]
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
    for number, span in spans:
        wanted[number, span.start : span.start + len(span.targets)] = True
    logits = needed_logits(model, ids.to(model.device), wanted.to(model.device), numerics)
    where = torch.full((len(rows), width), -1)
    where[wanted] = torch.arange(int(wanted.sum()))
    which = torch.cat([where[number, span.start : span.start + len(span.targets)] for number, span in spans])
    targets = torch.tensor([target for _, span in spans for target in span.targets])
    found = _in_own_precision(logits, which, targets) if numerics == "lm-eval" else score_logits(logits, which, targets)
    ends = [0, *itertools.accumulate(len(span.targets) for _, span in spans)]
    return [
        (float(found.loglikelihoods[start:end].sum()), bool(found.greedy[start:end].all()))
        for start, end in itertools.pairwise(ends)
    ]


def _in_own_precision(logits: Tensor, which: Tensor, targets: Tensor) -> Scored:
    """Like `score_logits`, with the softmax in the precision of the logits."""
    which, targets = which.to(logits.device), targets.to(logits.device)
    taken = functional.log_softmax(logits, dim=-1)[which, targets]
    return Scored(taken.cpu(), (logits.argmax(-1)[which] == targets).cpu())


def needed_logits(model: Any, ids: Tensor, wanted: Tensor, numerics: str) -> Tensor:
    """Computes logits only at the wanted positions.

    Args:
        model: A causal language model.
        ids: `[rows, width]` token ids.
        wanted: `[rows, width]`, bool.
        numerics: `fp32` or `lm-eval`.

    Returns:
        `[wanted positions, vocabulary]`, in row-major order; float32 unless `lm-eval`.
    """
    options: dict[str, Any] = {"use_cache": False}
    columns = None
    if _takes_mask_of_logits(model):
        options["logits_to_keep"] = wanted
    elif takes_logits_to_keep(model):
        options["logits_to_keep"] = columns = wanted.any(0).nonzero()[:, 0]
    with head_numerics(model, numerics):
        logits: Tensor = model(input_ids=ids, **options).logits
    if logits.dim() == 3:  # all positions, some columns of all rows, or the wanted ones with a leading axis of size one
        if logits.shape[:2] == wanted.shape:
            logits = logits[wanted]
        else:
            logits = logits.flatten(0, 1) if columns is None else logits[wanted[:, columns]]
    return logits if numerics == "lm-eval" else logits.float()


@contextmanager
def _float32_head(head: torch.nn.Linear) -> Any:
    def forward(hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, -2)
        size = _VOCABULARY_CHUNK if hidden.device.type == "cpu" else len(head.weight)
        starts = range(0, len(head.weight), size)
        logits = torch.cat([float32_product(rows, head.weight[start : start + size]) for start in starts], -1)
        if head.bias is not None:
            logits += head.bias.float()
        return logits.view(*hidden.shape[:-1], -1)

    with replaced_forward(head, forward):
        yield


@contextmanager
def _as_it_is() -> Any:
    yield


def head_numerics(model: Any, numerics: str) -> AbstractContextManager[None]:
    """Context manager inside which the output head runs in float32; it changes nothing under `lm-eval`.

    Later steps of the model on its logits (soft-capping, scaling) then run in float32 too.
    """
    head = model.get_output_embeddings()
    plain_head = type(head) is torch.nn.Linear and head.weight.dtype != torch.float32
    return _float32_head(head) if numerics == "fp32" and plain_head else _as_it_is()


def takes_logits_to_keep(model: Any) -> bool:
    """Whether a model can compute logits at given positions alone."""
    return "logits_to_keep" in inspect.signature(inner_model(model).forward).parameters


def _takes_mask_of_logits(model: Any) -> bool:
    """Whether a model can compute logits at other positions in each row, as models of transformers 5.21 and later can."""
    forward = inspect.unwrap(type(inner_model(model)).forward)
    return "slice_logits_to_keep" in forward.__code__.co_names


def _batches(rows: Sequence[ScoreRow], token_budget: int) -> list[list[ScoreRow]]:
    batches: list[list[ScoreRow]] = []
    width = 0
    for row in rows:
        if not batches or (len(batches[-1]) + 1) * max(width, len(row.ids)) > token_budget:
            batches.append([])
            width = 0
        batches[-1].append(row)
        width = max(width, len(row.ids))
    return batches
