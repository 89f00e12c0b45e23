"""KTO: makes answers that were marked good more likely, and answers that were marked bad less likely, without pairs.

Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", 2024 (arXiv 2402.01306). An answer's implied reward
is the gain in log-probability over the reference policy. Its value is measured from a reference point, the divergence of the policy
from the reference policy: as in the paper, the mean gain of mismatched answers, each after the prompt of another row of the batch,
and at least 0. No gradient passes through it. The reference policy is the same model with its first trained tensors.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from harness.finetune.stages.policy import ReferencePolicy, answer_logprobs
from harness.finetune.stages.references import row_logprobs
from harness.finetune.training.batches import Padding
from harness.finetune.training.stage import Stage
from harness.jobs import Example, TrainJob
from harness.tokens.training_labels import Tokenised, answer_ids, labelled

BETA = 0.1


class Kto(Stage):
    """Learns from single answers, each marked as desirable or undesirable.

    Figures: implied rewards of desirable answers (`chosen`) and of undesirable ones (`rejected`), and the reference point (`kl`).
    """

    def __init__(self, job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> None:
        self._settings, self._tokenizer, self._max_length = job.training, tokenizer, max_length
        self._beta = BETA if job.training.beta is None else job.training.beta
        self._all: list[dict[str, Any]] = []
        """All rows, for training and held out, each at its own index."""
        super().__init__(self._tokenise(job.examples))
        if len(self.rows) < 2 or job.training.batch_size < 2:
            raise UserError(
                "KTO compares each answer with the answer of another row of the batch, and a batch here has one row",
                hint="use at least two rows, and `batch_size=2` or more; 16 is usual",
            )
        self._padding = Padding(tokenizer.pad_token_id or 0)
        self._reference = ReferencePolicy(model)
        self._divergence = 0.0

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        return self._tokenise(examples).rows

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {**self._padding(rows), "index": torch.tensor([row["index"] for row in rows])}

    def items(self, batch: dict[str, Any]) -> int:
        return len(batch["index"])

    def before_batch(self, model: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Measures the reference point on mismatched answers, and the reference policy on rows that are new to it."""
        pairs = self._mismatched(sorted(rows, key=lambda row: row["index"]))
        new = [row for row in rows if "reference" not in row]
        with self._reference.active_in(model):
            reference = self._logprobs(model, [*pairs, *new])
        for row, logprob in zip(new, reference[len(pairs) :], strict=True):
            row["reference"] = logprob
        gains = [own - theirs for own, theirs in zip(self._logprobs(model, pairs), reference, strict=False)]
        self._divergence = max(0.0, sum(gains) / len(gains))

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        rows = [self._all[index] for index in batch["index"].tolist()]
        logprobs = answer_logprobs(model, batch)
        gains = logprobs - torch.tensor([row["reference"] for row in rows]).to(logprobs)
        desirable = torch.tensor([row["desirable"] for row in rows], device=gains.device)
        losses = kto_losses(
            gains,
            desirable,
            self._divergence,
            beta=self._beta,
            weights=(self._settings.desirable_weight, self._settings.undesirable_weight),
        )
        rewards = self._beta * gains
        point = torch.full_like(gains, self._divergence)
        self.figures.add(chosen=rewards[desirable], rejected=rewards[~desirable], kl=point)
        return losses.sum() / items

    def _tokenise(self, examples: Sequence[Example]) -> Tokenised:
        rows: list[dict[str, Any]] = []
        cut = dropped = lost = 0
        for example, (prompt, answer) in zip(examples, answer_ids(examples, self._tokenizer), strict=True):
            if example.desirable is None:
                raise UserError(
                    "a row has an answer that is marked neither good nor bad", hint="the data needs a column `label`"
                )
            row, length = labelled(prompt, answer, self._max_length), len(prompt) + len(answer)
            if row is None:
                dropped += 1
                lost += length
                continue
            cut += length > self._max_length
            lost += length - row["length"]
            row |= {"index": len(self._all), "prompt": prompt, "answer": answer, "desirable": example.desirable}
            rows.append(row)
            self._all.append(row)
        if not rows:
            raise UserError(
                f"none of the {len(examples)} training rows has an answer within {self._max_length} tokens",
                hint="raise `--max-length`, or shorten the prompts",
            )
        return Tokenised(rows, cut, dropped, lost)

    def _mismatched(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Makes a row of each prompt with the answer of another row; a batch of one row takes the next row of the data."""
        others = [rows[index] for index in mismatched([tuple(row["prompt"]) for row in rows])]
        if len(rows) == 1:
            others = [self.rows[(rows[0]["index"] + 1) % len(self.rows)]]
        made = [labelled(row["prompt"], o["answer"], self._max_length) for row, o in zip(rows, others, strict=True)]
        return [row for row in made if row is not None]  # all: a prompt that leaves no room was dropped

    def _logprobs(self, model: Any, rows: Sequence[dict[str, Any]]) -> list[float]:
        found = row_logprobs(model, rows, self._padding, self._settings, self._max_length)
        return [logprob for (logprob,) in found]


def mismatched(prompts: Sequence[Hashable]) -> list[int]:
    """Returns for each row the index of the row whose answer it is compared with; every answer is used once.

    It is the row before, as far as all prompts differ. Rows with equal prompts are never compared, unless they are more than half of
    the batch.

    Example:
        >>> mismatched(["a", "b", "c"]), mismatched(["a", "a", "b", "b"])
        ([2, 0, 1], [2, 3, 0, 1])
    """
    groups: dict[Hashable, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(index)
    order = [index for group in groups.values() for index in group]
    distance = min(max(map(len, groups.values())), max(1, len(order) // 2))
    others = dict(zip(order, order[-distance:] + order[:-distance], strict=True))
    return [others[index] for index in range(len(prompts))]


def kto_losses(
    gains: Tensor, desirable: Tensor, divergence: float, *, beta: float, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Returns the `[rows]` losses of the paper: the weight of each answer minus its value.

    Args:
        gains: `[rows]` log-probabilities of the answers, minus those of the reference policy.
        desirable: `[rows]`, whether an answer is marked good.
        divergence: The reference point, in the unit of the gains.
        beta: Risk aversion: how fast the value saturates.
        weights: Of desirable and undesirable answers.

    Example:
        >>> kto_losses(torch.zeros(2), torch.tensor([True, False]), 0.0, beta=0.1, weights=(1.0, 2.0))
        tensor([0.5000, 1.0000])
    """
    better = torch.where(desirable, gains - divergence, divergence - gains)
    weight = torch.where(desirable, weights[0], weights[1])
    return weight * (1 - torch.sigmoid(beta * better))


def make_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Kto:
    """See `harness.finetune.training.stage`."""
    return Kto(job, model, tokenizer, max_length)
