"""Preference pairs as rows and batches: the better answers first, then the worse ones in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from harness.errors import UserError
from harness.finetune.training.batches import Padding
from harness.finetune.training.stage import Stage
from harness.jobs import Example, TrainJob
from harness.tokens.training_labels import Tokenised, answer_ids, labelled


def encode_pairs(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Tokenised:
    """Tokenises pairs; both answers follow the same prompt.

    Returns:
        A row for each pair: `better` and `worse`, each with `input_ids` and `labels`; `length`: tokens of both. Answers are
        truncated on the right to `max_length`; pairs whose answers do not differ after that are dropped.

    Raises:
        UserError: A row has no worse answer, or no pair is left.
    """
    if any(example.rejected is None for example in examples):
        raise UserError(
            "a row has no worse answer to learn from", hint="the data needs the columns `chosen` and `rejected`"
        )
    answers = [each for e in examples for each in (e, replace(e, completion=str(e.rejected)))]
    ids = iter(answer_ids(answers, tokenizer))
    rows: list[dict[str, Any]] = []
    cut = dropped = lost = 0
    for sides in zip(ids, ids, strict=True):
        better, worse = (labelled(prompt, tail, max_length) for prompt, tail in sides)
        lengths = [len(prompt) + len(tail) for prompt, tail in sides]
        if better is None or worse is None or better["input_ids"] == worse["input_ids"]:
            dropped += 1
            lost += sum(lengths)
            continue
        rows.append({"better": better, "worse": worse, "length": better["length"] + worse["length"]})
        cut += max(lengths) > max_length
        lost += sum(lengths) - better["length"] - worse["length"]
    if not rows:
        raise UserError(
            f"none of the {len(examples)} pairs has two different answers within {max_length} tokens",
            hint="raise `--max-length`, or shorten the prompts",
        )
    return Tokenised(rows, cut, dropped, lost)


class PairStage(Stage):
    """Base of the stages that learn from pairs: rows, and micro-batches of `[2 * pairs, width]`, better answers first."""

    def __init__(self, job: TrainJob, tokenizer: Any, max_length: int) -> None:
        self._tokenise = partial(encode_pairs, tokenizer=tokenizer, max_length=max_length)
        super().__init__(self._tokenise(job.examples))
        self._padding = Padding(tokenizer.pad_token_id or 0)

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._tokenise(examples).rows

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = self._padding([row[side] for side in ("better", "worse") for row in rows])
        if "reference" in rows[0]:
            batch["reference"] = torch.tensor([row["reference"][side] for side in (0, 1) for row in rows])
        return batch

    def items(self, batch: dict[str, Any]) -> int:
        return len(batch["input_ids"]) // 2
