"""Greedy and sampled text by left-padded packs with a key-value cache: every row stops by its own rule.

Rows that are finished leave the batch; draws are seeded by request, so neither the batch nor the order changes a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.engine.padded_scoring import head_numerics
from harness.jobs import Raw
from harness.tokens.encode import Encoded

_DRAWN_AT_ONCE = 32
"""Rows whose probabilities are in memory together, in float64."""
_PAD = 0
_TAIL = 8
"""Tokens of prompt decoded before the new ones: SentencePiece drops the space of a text's first token."""


@dataclass
class Writer:
    """One text being written."""

    item: Encoded
    sample: int
    tokenizer: Any
    eos: frozenset[int]
    generator: torch.Generator | None
    ids: list[int] = field(default_factory=list)
    finished: bool = False
    end: int | None = None
    """The token that ended the text; None where a stop string or the limit did."""

    def take(self, token: int) -> None:
        """Adds a token, unless it ends the text; finished at EOS, a stop string, or the limit."""
        if token in self.eos:
            self.finished, self.end = True, token
            return
        self.ids.append(token)
        self.finished = len(self.ids) >= self.item.request.max_tokens or self._stopped()

    def text(self) -> str:
        """What was written, cut at the first stop string."""
        text = self._decode(self.ids)
        for stop in self.item.request.stop:
            text = text.split(stop)[0]
        return text

    def _stopped(self) -> bool:
        stops = self.item.request.stop
        if not stops:
            return False
        recent = self._decode(
            self.ids, last=max(len(stop.encode()) for stop in stops) + 2
        )  # a token has a byte at least
        return any(stop in recent for stop in stops)

    def _decode(self, ids: list[int], last: int | None = None) -> str:
        start = 0 if last is None else max(0, len(ids) - last)
        before = [*self.item.prompt, *ids[:start]][-_TAIL:]
        head = self.tokenizer.decode(before, skip_special_tokens=True)
        whole: str = self.tokenizer.decode([*before, *ids[start:]], skip_special_tokens=True)
        if whole.startswith(head):
            return whole[len(head) :]
        new: str = self.tokenizer.decode(ids[start:], skip_special_tokens=True)
        return new


def choose(writers: Sequence[Writer], logits: Tensor) -> list[int]:
    """The next token of each writer: the best one, or a draw by the writer's own generator.

    Args:
        writers: The rows.
        logits: `[rows, vocabulary]`, float32.
    """
    chosen: list[int] = logits.argmax(-1).tolist()
    drawing = [number for number, writer in enumerate(writers) if writer.generator is not None]
    for start in range(0, len(drawing), _DRAWN_AT_ONCE):
        rows = drawing[start : start + _DRAWN_AT_ONCE]
        drawn = _draw([writers[row] for row in rows], logits[rows])
        for row, token in zip(rows, drawn, strict=True):
            chosen[row] = token
    return chosen


def _draw(writers: Sequence[Writer], logits: Tensor) -> list[int]:
    requests = [writer.item.request for writer in writers]
    temperatures = torch.tensor([request.temperature for request in requests], dtype=torch.float64)
    chances = torch.softmax(logits.double() / temperatures[:, None].to(logits.device), -1)
    for row, request in enumerate(requests):
        if request.top_p < 1:
            chances[row] = _nucleus(chances[row], request.top_p)
    weights = chances.cumsum(-1)
    points = torch.stack([torch.rand((), generator=writer.generator, dtype=torch.float64) for writer in writers])
    places = torch.searchsorted(weights, points.to(logits.device)[:, None] * weights[:, -1:], right=True)
    drawn: list[int] = places[:, 0].clamp(max=logits.shape[-1] - 1).tolist()
    return drawn


def _nucleus(chances: Tensor, top_p: float) -> Tensor:
    """`[vocabulary]` probabilities with those zeroed that the likeliest tokens, `top_p` together, do without.

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (ICLR 2020).
    """
    ordered, order = chances.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(chances).scatter(0, order, ordered.where(before < top_p, torch.zeros_like(ordered)))


def writers(item: Encoded, tokenizer: Any, eos: frozenset[int], seed: int) -> list[Writer]:
    """One writer for each text that a request asks for."""
    made = []
    for sample in range(item.request.samples):
        generator = None
        if item.request.temperature > 0:
            key = hashlib.sha256(f"{seed}:{item.request.sha256}:{sample}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
        made.append(Writer(item, sample, tokenizer, eos, generator))
    return made


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a text: the tokenizer's and those of the model's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list | tuple) else [configured]
    return frozenset(i for i in [tokenizer.eos_token_id, *several] if i is not None)


def generate_pack(
    model: Any,
    tokenizer: Any,
    pack: Sequence[Encoded],
    *,
    seed: int,
    numerics: str,
) -> list[Raw]:
    """The texts of a pack's requests, in its order."""
    eos = eos_ids(model, tokenizer)
    by_item = [writers(item, tokenizer, eos, seed) for item in pack]
    write_together(model, [writer for group in by_item for writer in group], numerics=numerics)
    return [finished_raw(group) for group in by_item]


@torch.inference_mode()
def write_together(model: Any, writers: Sequence[Writer], *, numerics: str) -> None:
    """Has all writers finish their texts, side by side."""
    active = list(writers)
    width = max(len(writer.item.prompt) for writer in active)
    ids = torch.full((len(active), width), _PAD)
    mask = torch.zeros(len(active), width, dtype=torch.long)
    for number, writer in enumerate(active):
        prompt = torch.tensor(writer.item.prompt)
        ids[number, width - len(prompt) :] = prompt
        mask[number, width - len(prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    cache = None
    with head_numerics(model, numerics):
        while active:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float()
            for writer, token in zip(active, choose(active, logits), strict=True):
                writer.take(token)
            keep = [number for number, writer in enumerate(active) if not writer.finished]
            if len(keep) < len(active):
                where = torch.tensor(keep, device=model.device, dtype=torch.long)
                if keep:
                    cache.batch_select_indices(where)
                active, mask = [active[number] for number in keep], mask[where]
            ids = torch.tensor([[writer.ids[-1]] for writer in active], device=model.device)
            mask = torch.cat([mask, torch.ones(len(active), 1, dtype=mask.dtype, device=mask.device)], 1)


def finished_raw(group: Sequence[Writer]) -> Raw:
    """The outcome of a request whose writers are all finished."""
    item = group[0].item
    texts = tuple(writer.text() for writer in group)
    return Raw(item.index, item.prompt_tokens, item.truncated, sum(len(w.ids) for w in group), texts=texts)
