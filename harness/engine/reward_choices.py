"""Runs multiple-choice requests on a reward model: the reward of each choice takes the place of its log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from harness.engine.finite import NotFinite
from harness.engine.padded_generation import eos_ids
from harness.engine.runner import Runner
from harness.errors import UserError
from harness.jobs import Raw
from harness.models.load import context_length
from harness.models.reward_head import last_token_values
from harness.tokens.description import turn_end
from harness.tokens.encode import Encoded
from harness.tokens.packs import Pack, Way

_PAD = 0


class RewardRunner(Runner):
    """Runs a model with a reward head; texts end with the end-of-sequence token or the end of a turn, as in its training."""

    def way(self, encoded: Sequence[Encoded]) -> Way:
        """Padded packs, since right padding does not change the tokens before it; plain with learned prompts.

        Raises:
            UserError: Some requests are not multiple choice.
        """
        if any(item.request.mode != "choose" for item in encoded):
            raise UserError(
                "a reward model generates no text and gives no probabilities",
                hint="score it on multiple-choice tasks only",
            )
        return self._exact

    def _run(self, pack: Pack) -> list[Raw]:
        at_once = 1 if pack.way == "plain" else max(1, len(pack.items) * self._fed // self.token_budget)
        room = context_length(self.model, self.tokenizer)
        raws: list[Raw] = []
        eos, last = self.tokenizer.eos_token_id, turn_end(self.tokenizer, eos_ids(self.model, self.tokenizer))
        ends = (eos, eos if last is None else self.tokenizer.convert_tokens_to_ids(last[0]))
        for start in range(0, len(pack.items), at_once):
            raws += _rewards(self.model, pack.items[start : start + at_once], ends, room)
        return raws


@torch.inference_mode()
def _rewards(model: Any, items: Sequence[Encoded], ends: tuple[int, int], room: int) -> list[Raw]:
    """The rewards of the choices; `ends` are the ids that end a plain text and a turn of the chat template."""
    texts = [
        (
            number,
            span.choice,
            (*row.ids[: span.start + 1], *span.targets, ends[item.request.templated])[-room:],
            len(span.targets),
        )
        for number, item in enumerate(items)
        for row in item.rows
        for span in row.spans
    ]
    width = max(len(ids) for _, _, ids, _ in texts)
    ids = torch.tensor([[*ids, *[_PAD] * (width - len(ids))] for _, _, ids, _ in texts])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for _, _, ids, _ in texts])
    values = last_token_values(model, ids.to(model.device), mask.to(model.device)).tolist()
    rewards = [[0.0] * len(item.request.continuations) for item in items]
    tokens = [0] * len(items)
    for (number, choice, row, count), value in zip(texts, values, strict=True):
        if not math.isfinite(value):
            raise NotFinite(row)
        rewards[number][choice] = value
        tokens[number] += count
    return [
        Raw(
            item.index,
            item.prompt_tokens,
            item.truncated,
            tokens[number],
            loglikelihoods=tuple(rewards[number]),
            is_greedy=tuple(value == max(rewards[number]) for value in rewards[number]),
        )
        for number, item in enumerate(items)
    ]
