"""Generates text, greedy or sampled, in left-padded packs with a key-value cache; every row stops by its own rule.

Finished rows leave the batch. Sampling is seeded by request, so neither the batch nor the order changes a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from harness.engine.finite import NotFinite
from harness.engine.generation_rules import GenerationRules
from harness.engine.likeliest import likeliest
from harness.engine.padded_scoring import head_numerics
from harness.jobs import Raw
from harness.prompts.thoughts import split_thought
from harness.tokens.description import turn_end
from harness.tokens.encode import Encoded

_SAMPLED_AT_ONCE = 32
"""Rows whose float64 probabilities are in memory at the same time."""
_PAD = 0
_PART = "\ufffd"
"""What a token is decoded to that holds a part of a character."""
_TAIL = 8
"""Prompt tokens that are decoded before the new ones: SentencePiece drops the space before a text's first token."""


@dataclass
class Completion:
    """One text that is being generated."""

    item: Encoded
    sample: int
    tokenizer: Any
    eos: frozenset[int]
    generator: torch.Generator | None
    rules: Callable[[Tensor, Tensor], Tensor] | None = None
    """Changes the logits of the next token, given all ids so far, `[1, ids]`, and the logits, `[1, vocabulary]`."""
    ids: list[int] = field(default_factory=list)
    finished: bool = False
    end: int | None = None
    """The token that ended the text; None if a stop string or the limit ended it."""
    at_limit: bool = False
    """Whether the limit of thought and answer together ended the text."""
    state: Literal["start", "thought", "thought closed", "answer"] = "start"
    """Part of the text that the next token belongs to; the answer begins after the white space that follows a thought."""
    answer_from: int = 0
    """Number of tokens before the answer."""

    def add(self, token: int) -> None:
        """Adds the next token, or finishes the text: at an end token, a stop string, or the limit."""
        if token in self.eos:
            self.finished, self.end = True, token
            return
        request = self.item.request
        self.ids.append(token)
        if self.state != "answer":
            self._follow_thought()
        answered = len(self.ids) - self.answer_from if self.state == "answer" else 0
        stopped = self._stopped()
        self.at_limit = not stopped and len(self.ids) >= request.limit
        self.finished = stopped or self.at_limit or answered >= request.max_tokens

    def _follow_thought(self) -> None:
        """Updates the state; inside a thought, only the last tokens are decoded."""
        request = self.item.request
        opening, closing = request.thought
        if self.state == "start":
            begun = self._decode(self.ids, special=True).lstrip()
            if request.in_thought or begun.startswith(opening):
                self.state = "thought"
            elif not opening.startswith(begun):
                self.state = "answer"
        if self.state == "thought" and closing in self._decode(self.ids, last=len(closing.encode()) + 2, special=True):
            self.state = "thought closed"
        if self.state == "thought closed" and split_thought(self._decode(self.ids, special=True), request)[1]:
            self.state, self.answer_from = "answer", len(self.ids) - 1

    def text(self) -> str:
        """The generated text without special tokens, cut at the first stop string; a special token can be one.

        A thought before the answer is kept as it is, with its special tokens.
        """
        stops = self.item.request.stop
        text = self._decode(self.ids)
        shown = self._decode(self.ids, special=True)
        thought, answer = split_thought(shown, self.item.request)
        if answer is None:
            return thought
        if thought:
            return thought + self._without_special(_cut(answer, stops))
        if shown != text and (kept := _cut(shown, stops)) != shown:
            text = self._without_special(kept)
        return _cut(text, stops)

    def _stopped(self) -> bool:
        stops = self.item.request.stop
        if not stops or not _ends(self.tokenizer, stops)(self.ids[-1]):
            return False
        longest = max(len(stop.encode()) for stop in stops)  # a token holds a byte or more
        recent = self._decode(self.ids, last=longest + 2, special=True)
        if self.state in ("start", "answer") and any(stop in recent for stop in stops):
            if not self.answer_from:
                return True
            answer = split_thought(self._decode(self.ids, special=True), self.item.request)[1] or ""
            return any(stop in answer for stop in stops)  # and not in the end of the thought
        return False

    def _without_special(self, text: str) -> str:
        """A text without the special tokens among the generated ones."""
        for id in set(self.ids):
            if not self.tokenizer.decode([id], skip_special_tokens=True):
                text = text.replace(self.tokenizer.decode([id]), "")
        return text

    def _decode(self, ids: list[int], last: int | None = None, *, special: bool = False) -> str:
        start = 0 if last is None else max(0, len(ids) - last)
        before = [*self.item.prompt, *ids[:start]][-_TAIL:]
        head = self.tokenizer.decode(before, skip_special_tokens=not special)
        whole: str = self.tokenizer.decode([*before, *ids[start:]], skip_special_tokens=not special)
        if whole.startswith(head):
            return whole[len(head) :]
        new: str = self.tokenizer.decode(ids[start:], skip_special_tokens=not special)
        return new


@lru_cache(maxsize=64)
def _ends(tokenizer: Any, stops: tuple[str, ...]) -> Callable[[int], bool]:
    """Returns a function that tells whether a text may end in one of the stop strings after a token, whatever comes before.

    Decoding the last tokens of all rows would take the host longer than a step takes a GPU. What a token adds to a text is
    what it is decoded to alone, but for spaces, which decoders add and remove, and for parts of a character.
    """
    lasts = {stop[-1:] for stop in stops}

    @cache
    def may_end(token: int) -> bool:
        text: str = tokenizer.decode([token])
        return _PART in text or not lasts.isdisjoint(text)

    return may_end if lasts.isdisjoint((" ", "", _PART)) else lambda token: True


def _cut(text: str, stops: Sequence[str]) -> str:
    """A text up to the first stop string."""
    for stop in stops:
        text = text.split(stop)[0]
    return text


def next_tokens(completions: Sequence[Completion], logits: Tensor) -> list[int]:
    """Chooses the next token of each completion: the most likely one, or one sampled with the completion's generator.

    Args:
        completions: The texts, one for each row.
        logits: `[rows, vocabulary]`, float32.

    Raises:
        NotFinite: The largest logit of a row is NaN or infinite.
    """
    most, ids_of_most = likeliest(logits)
    for completion, finite in zip(completions, most.isfinite().tolist(), strict=True):
        if not finite:
            raise NotFinite([*completion.item.prompt, *completion.ids])
    if any(completion.rules for completion in completions):
        logits = logits.clone()
        for row, completion in enumerate(completions):
            if completion.rules:
                ids = torch.tensor([[*completion.item.prompt, *completion.ids]], device=logits.device)
                logits[row] = completion.rules(ids, logits[row : row + 1])[0]
        ids_of_most = likeliest(logits)[1]
    chosen: list[int] = ids_of_most.tolist()
    sampled = [number for number, completion in enumerate(completions) if completion.generator is not None]
    for start in range(0, len(sampled), _SAMPLED_AT_ONCE):
        rows = sampled[start : start + _SAMPLED_AT_ONCE]
        drawn = _sample([completions[row] for row in rows], logits[rows])
        for row, token in zip(rows, drawn, strict=True):
            chosen[row] = token
    return chosen


def _sample(completions: Sequence[Completion], logits: Tensor) -> list[int]:
    requests = [completion.item.request for completion in completions]
    temperatures = torch.tensor([request.temperature for request in requests], dtype=torch.float64)
    probabilities = torch.softmax(logits.double() / temperatures[:, None].to(logits.device), -1)
    for row, request in enumerate(requests):
        if request.top_p < 1:
            probabilities[row] = _nucleus(probabilities[row], request.top_p)
    weights = probabilities.cumsum(-1)
    points = torch.stack(
        [torch.rand((), generator=completion.generator, dtype=torch.float64) for completion in completions]
    )
    places = torch.searchsorted(weights, points.to(logits.device)[:, None] * weights[:, -1:], right=True)
    drawn: list[int] = places[:, 0].clamp(max=logits.shape[-1] - 1).tolist()
    return drawn


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest most likely tokens that have a probability of `top_p` together, and sets the others to zero.

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (ICLR 2020).

    Args:
        probabilities: `[vocabulary]`.
        top_p: Probability to keep.
    """
    ordered, order = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(0, order, ordered.where(before < top_p, torch.zeros_like(ordered)))


def start_completions(
    item: Encoded, tokenizer: Any, eos: frozenset[int], seed: int, rules: GenerationRules
) -> list[Completion]:
    """Makes a completion for each text that a request asks for."""
    made = []
    own = rules.of(item.request, len(item.prompt))
    for sample in range(item.request.samples):
        generator = None
        if item.request.temperature > 0:
            key = hashlib.sha256(f"{seed}:{item.request.sha256}:{sample}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
        made.append(Completion(item, sample, tokenizer, eos, generator, own))
    return made


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """All tokens that end a text: those of tokenizer and generation config, and the end of a turn in the chat template."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list | tuple) else [configured]
    found = frozenset(i for i in [tokenizer.eos_token_id, *several] if i is not None)
    end = turn_end(tokenizer, found)
    return found if end is None else found | {tokenizer.convert_tokens_to_ids(end[0])}


def generate_pack(
    model: Any,
    tokenizer: Any,
    pack: Sequence[Encoded],
    *,
    seed: int,
    numerics: str,
) -> list[Raw]:
    """Generates the texts of a pack's requests, in the order of the pack."""
    eos, rules = eos_ids(model, tokenizer), GenerationRules(model)
    by_item = [start_completions(item, tokenizer, eos, seed, rules) for item in pack]
    complete_together(model, [completion for group in by_item for completion in group], numerics=numerics)
    return [finished_raw(group) for group in by_item]


@torch.inference_mode()
def complete_together(model: Any, completions: Sequence[Completion], *, numerics: str) -> None:
    """Generates all completions to their ends, in one batch."""
    active = list(completions)
    ids, mask = (tensor.to(model.device) for tensor in left_padded([each.item.prompt for each in active]))
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
            for completion, token in zip(active, next_tokens(active, logits), strict=True):
                completion.add(token)
            keep = [number for number, completion in enumerate(active) if not completion.finished]
            if len(keep) < len(active):
                where = torch.tensor(keep, device=model.device, dtype=torch.long)
                if keep:
                    cache.batch_select_indices(where)
                active, mask = [active[number] for number in keep], mask[where]
            ids = torch.tensor([[completion.ids[-1]] for completion in active], device=model.device)
            mask = torch.cat([mask, torch.ones(len(active), 1, dtype=mask.dtype, device=mask.device)], 1)


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The ids of prompts and their mask, `[prompts, longest]` each, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), _PAD)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for number, prompt in enumerate(prompts):
        ids[number, width - len(prompt) :] = torch.tensor(prompt)
        mask[number, width - len(prompt) :] = 1
    return ids, mask


def finished_raw(group: Sequence[Completion]) -> Raw:
    """The result of a request whose completions are all finished."""
    item = group[0].item
    return Raw(
        item.index,
        item.prompt_tokens,
        item.truncated,
        sum(len(each.ids) for each in group),
        texts=tuple(completion.text() for completion in group),
        shortened=item.limited and any(completion.at_limit for completion in group),
        thought_tokens=sum(completion.answer_from for completion in group),
    )
