"""Rollouts: answers that the policy generates during training, and their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from harness.engine.oracle import complete_plainly
from harness.engine.padded_generation import Completion, complete_together, eos_ids
from harness.engine.prefix_cache import learns_a_prompt
from harness.errors import UserError
from harness.finetune.stages.reward_sources import FunctionReward, ModelReward, RewardSource
from harness.finetune.training.batches import Padding
from harness.finetune.training.validation import evaluation_mode
from harness.jobs import Example, Request
from harness.prompts.thoughts import ends_in_thought, split_thought
from harness.settings import TrainingSettings
from harness.tokens.description import thought_marks
from harness.tokens.encode import Encoded
from harness.tokens.training_labels import Tokenised, answer_ids, labelled


class Prompts:
    """Tokenised prompts, for training and held out, each found by its index.

    Args:
        tokenizer: The model's.
        max_length: Maximum tokens of a prompt and its answer together.
        settings: Of the training run.

    Raises:
        UserError: Answers of `max_tokens` leave no room for a prompt.
    """

    def __init__(self, tokenizer: Any, max_length: int, settings: TrainingSettings) -> None:
        self._tokenizer = tokenizer
        self._room = max_length - settings.max_tokens
        if self._room < 1:
            raise UserError(
                f"answers of {settings.max_tokens} tokens leave no room for a prompt within {max_length}",
                hint="lower `max_tokens`, or raise `max_length`",
            )
        self._rows: list[dict[str, Any]] = []

    def encode(self, examples: Sequence[Example]) -> Tokenised:
        """Makes rows with `prompt`, `example`, `index` and `length`; long prompts are truncated on the left."""
        rows: list[dict[str, Any]] = []
        cut = lost = 0
        pairs = answer_ids([replace(example, completion="") for example in examples], self._tokenizer)
        for example, (ids, _) in zip(examples, pairs, strict=True):
            kept = ids[-self._room :]
            cut += len(kept) < len(ids)
            lost += len(ids) - len(kept)
            rows.append({"prompt": kept, "example": example, "index": len(self._rows), "length": len(kept)})
            self._rows.append(rows[-1])
        return Tokenised(rows, cut, 0, lost)

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Makes a micro-batch of prompt indices; the model's inputs follow when the answers are generated."""
        return {"index": torch.tensor([row["index"] for row in rows]), "tokens": sum(row["length"] for row in rows)}

    def rows_of(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the rows of a micro-batch."""
        return [self._rows[index] for index in batch["index"].tolist()]


@dataclass(frozen=True)
class Rollouts:
    """Answers to a micro-batch of prompts, all answers to a prompt in a row."""

    batch: dict[str, Any]
    """`input_ids`, `labels` (on answers only) and `attention_mask`, `[prompts * generations, width]`."""
    rewards: Tensor
    """`[prompts * generations]` float32."""
    ended: Tensor
    """`[prompts * generations]`: 1 where the model ended its answer, 0 where `max_tokens` did."""


def roll_out(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], settings: TrainingSettings, reward: RewardSource
) -> Rollouts:
    """Generates answers to prompts, and computes their rewards.

    Answers are sampled with torch's generator in the order of the rows. The loop seeds it with the step, so a resumed run samples
    the same answers, and the size of micro-batches changes none of them.
    """
    eos, thought = eos_ids(model, tokenizer), thought_marks(tokenizer) or Request.thought
    completions = [
        Completion(_encoded(row, settings, thought), sample, tokenizer, eos, torch.Generator().manual_seed(_seed()))
        for row in rows
        for sample in range(settings.generations)
    ]
    with evaluation_mode(model):
        if learns_a_prompt(model):  # no padding between learned tokens and the text
            for completion in completions:
                complete_plainly(model, completion, numerics="lm-eval")
        else:
            complete_together(model, completions, numerics="lm-eval")
    answers = [[*completion.ids, *([] if completion.end is None else [completion.end])] for completion in completions]
    answered = [
        labelled(completion.item.prompt, ids, 1 << 30) for completion, ids in zip(completions, answers, strict=True)
    ]
    assert all(row is not None for row in answered)
    batch = send_to_device(Padding(tokenizer.pad_token_id or 0)(answered), model.device)  # type: ignore[arg-type]
    examples = [row["example"] for row in rows for _ in range(settings.generations)]
    ended = [completion.end is not None for completion in completions]
    texts = [completion.text() for completion in completions]
    own: dict[str, Any] = {}
    if isinstance(reward, ModelReward):
        own = {"turn_ends": [example.turn_end for example in examples]}
    elif isinstance(reward, FunctionReward):
        own = {"answers": [split_thought(each.text(), each.item.request)[1] or "" for each in completions]}
    rewards = reward(
        [example.prompt for example in examples],
        texts,
        [example.completion for example in examples],
        ended,
        **own,
    )
    return Rollouts(batch, torch.tensor(rewards, dtype=torch.float32, device=model.device), torch.tensor(ended).float())


def _encoded(row: dict[str, Any], settings: TrainingSettings, thought: tuple[str, str]) -> Encoded:
    request = Request(
        str(row["index"]),
        "generate",
        (row["example"].prompt,),
        max_tokens=settings.max_tokens,
        samples=settings.generations,
        temperature=settings.temperature,
        thought=thought,
        in_thought=ends_in_thought(row["example"].prompt, thought),
    )
    return Encoded(row["index"], request, (), tuple(row["prompt"]), len(row["prompt"]), False)


def _seed() -> int:
    return int(torch.randint(1 << 62, ()).item())
