"""What one kind of training feeds and minimises: answers, plain text, pairs, or rewards.

The trainer owns steps, rates, precision, memory and checkpoints; a stage owns rows, batches and the loss. `load_stage` finds
the one that a job asks for.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor

from harness.finetune.training.figures import Figures
from harness.jobs import Example, TrainJob
from harness.settings import STAGES


class Stage(Protocol):
    """A kind of training, made for one job: `make_stage(job, model, tokenizer, max_length)` of its module."""

    rows: Sequence[dict[str, Any]]
    """What is trained on, tokenised; each row has its `length` in tokens."""
    truncated: int
    """Rows that were cut."""
    dropped: int
    """Rows left out: nothing to learn from was left of them."""
    lost_tokens: int
    """Tokens cut off, and those of the rows left out."""
    updates: int
    """Optimizer steps that follow one another on the same rows: a round."""
    figures: Figures
    """Further numbers, means since they were last taken: of a step, or of a look at the held-out rows."""

    def encode(self, examples: Sequence[Example]) -> Sequence[dict[str, Any]]:
        """Further examples as rows: those held out."""

    def begin(self, step: int) -> None:
        """Told before every attempt at a step, counted from 0; one that ran out of memory is made again."""

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A micro-batch: tensors, and its real `tokens` as a plain number."""

    def items(self, batch: dict[str, Any]) -> int:
        """What the loss is a mean over: labels, pairs, written answers in a micro-batch."""

    def loss(self, model: Any, batch: dict[str, Any], items: int) -> Tensor:
        """The sum over a micro-batch, divided by `items`, which counts those of the whole batch."""

    def finish(self, model: Any, folder: Path) -> None:
        """Takes off the model what training alone needed, and leaves in the artifact's folder what belongs to it."""


def load_stage(job: TrainJob, model: Any, tokenizer: Any, max_length: int) -> Stage:
    """The stage of a job, its rows tokenised."""
    module = importlib.import_module(f"harness.finetune.stages.{STAGES[job.training.stage].module}")
    return cast(Stage, module.make_stage(job, model, tokenizer, max_length))
