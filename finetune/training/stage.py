"""Stages of training: a stage decides which rows a training run learns from, how they are batched, and which loss it minimises.

The trainer and its loop decide the rest: steps, learning rates, precision, memory and checkpoints.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from harness.finetune.training.figures import Figures
from harness.jobs import Example, TrainJob
from harness.models.phases import Phases
from harness.settings import STAGES
from harness.tokens.training_labels import Tokenised


class Stage(ABC):
    """Rows, batches and loss of one training job.

    A module of a stage makes it with `make_stage(job, model, tokenizer, max_length)`.

    Args:
        encoded: Rows to train on; each has its `length` in tokens.
    """

    updates = 1
    """Consecutive optimizer steps on the same batch: a round."""

    def __init__(self, encoded: Tokenised) -> None:
        self.rows: Sequence[dict[str, Any]] = encoded.rows
        self.truncated = encoded.cut
        """Number of truncated rows."""
        self.dropped = encoded.dropped
        """Number of rows left out because truncation leaves nothing to learn."""
        self.lost_tokens = encoded.lost_tokens
        """Tokens cut off, and the tokens of dropped rows."""
        self.figures = Figures()
        """Further figures of a step or an evaluation, as means over its rows or answers."""
        self.phases = Phases("train")
        """Clocks of the job; a stage that generates answers runs `generate`."""

    @abstractmethod
    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        """Tokenises held-out examples."""

    def begin(self, step: int) -> None:  # noqa: B027
        """Prepares for a step, counted from 0; called again if the step ran out of memory and is repeated."""

    def before_batch(self, model: Any, rows: Sequence[dict[str, Any]]) -> None:  # noqa: B027
        """Computes what the losses of all micro-batches of a batch need, without gradients; also before an evaluation.

        Args:
            model: The model in training.
            rows: All rows of the batch.
        """

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Makes a micro-batch: tensors, and the number of its `tokens` without padding."""

    @abstractmethod
    def items(self, batch: dict[str, Any]) -> int:
        """Counts what the loss averages over: labels, pairs, rows or generated answers in a micro-batch."""

    @abstractmethod
    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        """Sums the loss over a micro-batch and divides it by `items`, counted over the whole batch."""

    def finish(self, model: Any, folder: Path) -> None:  # noqa: B027
        """Removes from the model what only training needs, and saves what belongs to the artifact in its folder."""


def load_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Stage:
    """Makes the stage of a job, which tokenises its rows."""
    module = importlib.import_module(f"harness.finetune.stages.{STAGES[job.training.stage].module}")
    return cast(Stage, module.make_stage(job, model, tokenizer, max_length))
