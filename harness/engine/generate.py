"""Greedy and sampled text by left-padded packs with a key-value cache: every row stops by its own rule.

Rows that are finished leave the batch; draws are seeded by request, so neither the batch nor the order changes a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.engine.encode import Encoded
from harness.engine.score import head_numerics
from harness.jobs import Raw

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

    def choose(self, logits: Tensor, best: int) -> int:
        """The next token from `[vocabulary]` float32 logits: the best one, or a seeded draw."""
        if self.generator is None:
            return best
        request = self.item.request
        chances = torch.softmax(logits.double().cpu() / request.temperature, -1)
        if request.top_p < 1:
            chances = _nucleus(chances, request.top_p)
        weights = chances.cumsum(-1)
        point = torch.rand((), generator=self.generator, dtype=torch.float64) * weights[-1]
        return min(int(torch.searchsorted(weights, point, right=True)), logits.shape[-1] - 1)

    def take(self, token: int) -> None:
        """Adds a token, unless it ends the text; finished at EOS, a stop string, or the limit."""
        if token in self.eos:
            self.finished = True
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


@torch.inference_mode()
def generate_pack(
    model: Any,
    tokenizer: Any,
    pack: Sequence[Encoded],
    *,
    seed: int,
    numerics: str,
    on_step: Callable[[], None] = lambda: None,
) -> list[Raw]:
    """The texts of a pack's requests, in its order."""
    eos = eos_ids(model, tokenizer)
    by_item = [writers(item, tokenizer, eos, seed) for item in pack]
    active = [writer for group in by_item for writer in group]
    width = max(len(writer.item.prompt) for writer in active)
    ids = torch.full((len(active), width), tokenizer.eos_token_id)
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
            for writer, row, best in zip(active, logits, logits.argmax(-1).tolist(), strict=True):
                writer.take(writer.choose(row, best))
            on_step()
            keep = [number for number, writer in enumerate(active) if not writer.finished]
            if len(keep) < len(active):
                where = torch.tensor(keep, device=model.device, dtype=torch.long)
                if keep:
                    cache.batch_select_indices(where)
                active, mask = [active[number] for number in keep], mask[where]
            ids = torch.tensor([[writer.ids[-1]] for writer in active], device=model.device)
            mask = torch.cat([mask, torch.ones(len(active), 1, dtype=mask.dtype, device=mask.device)], 1)
    return [finished_raw(group) for group in by_item]


def finished_raw(group: Sequence[Writer]) -> Raw:
    """The outcome of a request whose writers are all finished."""
    item = group[0].item
    texts = tuple(writer.text() for writer in group)
    return Raw(item.index, item.prompt_tokens, item.truncated, sum(len(w.ids) for w in group), texts=texts)
