"""The training loop on accelerate: forward, backward, clip and step, with evaluations, checkpoints and exact resume.

An optimizer step is one batch, split into micro-batches of similar length, and into smaller ones if memory runs out: its gradient
is the same. The rows of a step, and its random numbers (dropout, noise, sampled answers), depend only on the seed and the number
of the step. So there is no data loader to fast-forward and no random state to save: a run that is resumed from a checkpoint
makes the same steps as an uninterrupted one.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import set_seed

from harness.finetune.training.adaptive_rank import AdaptiveRank
from harness.finetune.training.checkpoints import Checkpoints, Position
from harness.finetune.training.micro_batches import fewer_rows, length, overhead, split, tokens_at_once
from harness.finetune.training.neftune import add_noise
from harness.finetune.training.optimizers import schedule
from harness.finetune.training.recorder import Recorder
from harness.finetune.training.stage import Stage
from harness.finetune.training.validation import Validation, evaluation_mode
from harness.settings import TrainingSettings

CHECKPOINT_EVERY_SECONDS = 300.0

_Result = TypeVar("_Result")


class Diverged(Exception):
    """The loss or the gradient is not a finite number.

    Args:
        message: Names the step.
        broken: Whether the weights no longer give a finite loss for the rows of the previous step, whose loss was finite.
    """

    def __init__(self, message: str, *, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


class Loss(nn.Module):
    """Wraps a stage's loss as the forward of a module: DDP, FSDP, ZeRO and autocast of accelerate act only on a forward."""

    def __init__(self, stage: Stage, model: nn.Module) -> None:
        super().__init__()
        self._stage = stage
        self.model = model

    def forward(self, micro_batch: dict[str, Any], items: int) -> tuple[Tensor, int]:
        """Returns the loss and the number of tokens, which a stage that samples its answers knows only after its loss."""
        loss = self._stage.loss(self.model, micro_batch, items)
        return loss, micro_batch["tokens"]


@dataclass(frozen=True)
class Batch:
    """The rows of an optimizer step, cut into micro-batches and collated."""

    rows: Sequence[dict[str, Any]]
    micro_batches: Sequence[dict[str, Any]]
    items: int
    """Counted over all micro-batches: the loss is a mean over them."""


class Loop:
    """Runs the optimizer steps of one training run.

    Args:
        stage: Provides rows, micro-batches and the loss.
        model: The model to train, on its device.
        settings: Settings of the run.
        steps: Optimizer steps of the whole run.
        accelerator: Device and mixed precision.
        optimizer: Updates the model's trained parameters.
        recorder: Receives the figures of every step and evaluation.
        state: Folder of the checkpoints.
        train_key: Identifies the run among them.
        validation: Evaluations during the run; None: no evaluation.
        ranks: AdaLoRA's ranks; None for other methods.
        aside: Entered, with the name of a phase, for work that is no training: `evaluate`, `save`.
    """

    def __init__(
        self,
        stage: Stage,
        model: Any,
        settings: TrainingSettings,
        steps: int,
        *,
        accelerator: Accelerator,
        optimizer: torch.optim.Optimizer,
        recorder: Recorder,
        state: Path,
        train_key: str,
        validation: Validation | None = None,
        ranks: AdaptiveRank | None = None,
        aside: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model, self.steps, self.accelerator, self.validation = model, steps, accelerator, validation
        self._stage, self._settings, self._recorder, self._ranks = stage, settings, recorder, ranks
        quantized = getattr(model, "is_quantized", False)  # quantized weights cannot be moved
        self._module, self._optimizer = accelerator.prepare(
            Loss(stage, model), optimizer, device_placement=[not quantized, True]
        )
        self.checkpoints = Checkpoints(state, train_key, model, self._optimizer, accelerator.scaler, ranks)
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._learning_rates = [group["lr"] for group in self._optimizer.param_groups]
        self._schedule = schedule(settings, steps)
        self._noise = add_noise(model, settings.neftune) if settings.neftune else None
        width = getattr(model.config.get_text_config(), "hidden_size", 1024)
        self._overhead = overhead(accelerator.device.type, settings.precision, width)
        self._aside = aside
        self._last_good: Batch | None = None
        self.progress = Position(most_rows=settings.micro_batch_size)

    def run(self) -> None:
        """Trains to the last step, or until evaluations stop improving, and keeps the best evaluation's weights."""
        self._module.train()
        saved = time.monotonic()
        while self.progress.step < self.steps and not self._out_of_patience():
            self.step()
            best = self._evaluation_is_due() and self.evaluate()
            due = time.monotonic() - saved >= CHECKPOINT_EVERY_SECONDS
            if best or (due and self.progress.step % self._stage.updates == 0):  # a round cannot be resumed midway
                with self._aside("save"):
                    self.checkpoints.save(self.progress)
                self._recorder.saved(self.progress.step)
                saved = time.monotonic()
        if self.progress.best_step is not None:
            self.checkpoints.load_weights(self.progress.best_step)

    def step(self) -> None:
        """Makes one optimizer step."""
        number = self.progress.step
        batch = self._cut(self._rows(number))
        self._recorder.step_begins()
        for group, learning_rate in zip(self._optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = learning_rate * self._schedule(number)
        loss, tokens = self._attempt(self._forward_and_backward, batch)
        if not math.isfinite(loss):
            raise Diverged(f"the loss of step {number + 1} is {loss:g}", broken=not self.loss_is_finite())
        self._last_good = batch
        norm = float(self.accelerator.clip_grad_norm_(self._trained, self._settings.clip or math.inf))
        if not math.isfinite(norm) and self.accelerator.scaler is None:  # the scaler of fp16 skips such a step
            raise Diverged(f"the gradient of step {number + 1} is {norm:g}")
        self._optimizer.step()
        if self._ranks is not None:
            self._ranks.after_step(number + 1)  # reads the gradients
        self._optimizer.zero_grad()
        self._recorder.step_ends()
        self.progress.step += 1
        figures = {"lr": self._settings.lr * self._schedule(number), "grad_norm": norm, "tokens": tokens}
        self._recorder.step(number + 1, self.steps, {"loss": loss, **figures, **self._stage.figures.take()})

    def _forward_and_backward(self, batch: Batch) -> tuple[float, int]:
        """Accumulates the gradient of the batch; returns its loss and its number of tokens."""
        total, tokens = torch.zeros((), device=self.accelerator.device), 0
        if self._noise is not None:
            self._noise.length = sum(map(length, batch.rows)) / len(batch.rows)
        self._stage.begin(self.progress.step)
        self._stage.before_batch(self.model, batch.rows)
        for micro_batch in batch.micro_batches:
            loss, learned = self._module(send_to_device(micro_batch, self.accelerator.device), batch.items)
            self.accelerator.backward(loss)
            total += loss.detach()
            tokens += learned
        if self._ranks is not None:
            self.accelerator.backward(self._ranks.penalty())
        return float(total), tokens

    def _rows(self, step: int) -> list[dict[str, Any]]:
        """Returns the rows of a step: every epoch has its own random order; the steps of a round share a batch."""
        rows, updates = self._stage.rows, self._stage.updates
        epoch, place = divmod(step // updates, batches_per_epoch(len(rows), self._settings.batch_size, updates))
        size = min(self._settings.batch_size, len(rows))
        order = _order(len(rows), self._settings.seed + epoch)
        return [rows[index] for index in order[place * size : (place + 1) * size].tolist()]

    def _cut(self, rows: Sequence[dict[str, Any]]) -> Batch:
        """Collates rows into micro-batches of at most `most_rows` rows."""
        most = self.progress.most_rows
        if self._settings.packing:  # packed rows are not padded, so similar lengths gain nothing
            groups = [list(rows[start : start + most]) for start in range(0, len(rows), most)]
        else:
            tokens = tokens_at_once(self.accelerator.device.type, self._settings.max_length)
            groups = split(rows, most, self._overhead, tokens)
        micro_batches = [self._stage.collate(group) for group in groups]
        return Batch(rows, micro_batches, sum(map(self._stage.items, micro_batches)))

    def _attempt(self, work: Callable[[Batch], _Result], batch: Batch, stream: int = 0) -> _Result:
        """Does the work; if memory runs out, repeats it with half as many rows at once.

        Args:
            work: Computes something from a batch.
            batch: Batch as split so far.
            stream: Gives each piece of work in the same step its own random numbers.
        """
        figures = self._stage.figures.snapshot()
        while True:
            seed_generators(self._settings.seed, self.progress.step, stream, self.accelerator.process_index)
            try:
                return work(batch)
            except (RuntimeError, MemoryError) as error:
                self.progress.most_rows = fewer_rows(error, min(self.progress.most_rows, len(batch.rows)))
            self._module.zero_grad()
            self._stage.figures.restore(figures)
            gc.collect()
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            batch = self._cut(batch.rows)

    def resume(self, progress: Position) -> None:
        """Continues from a checkpoint."""
        self.checkpoints.load(progress.step)
        self.progress = progress

    # Evaluations

    def _evaluation_is_due(self) -> bool:
        last = self.progress.step == self.steps
        return self.validation is not None and (last or self.progress.step % self.validation.every == 0)

    def _out_of_patience(self) -> bool:
        patience = self._settings.patience
        return patience is not None and self.progress.evaluations_without_gain >= patience

    def evaluate(self) -> bool:
        """Measures the held-out rows and the monitored task; returns whether the model is the best so far."""
        assert self.validation is not None, "nothing is held out"
        figures: dict[str, float] = {}
        with self._aside("evaluate"), evaluation_mode(self.model):
            if self.validation.rows:
                figures = {"loss": self._held_out_loss(self.validation.rows), **self._stage.figures.take()}
            if self.validation.headline is not None:
                with self.accelerator.autocast():
                    figures["headline"] = self.validation.headline.measure(self.model)
        self._recorder.evaluation(self.progress.step, figures)
        return self.progress.evaluated(figures[self.validation.measure], self.validation.higher_is_better)

    def _held_out_loss(self, held_out: Sequence[dict[str, Any]]) -> float:
        size, total, items = self._settings.batch_size, 0.0, 0
        ordered = sorted(held_out, key=length)
        for start in range(0, len(ordered), size):
            batch = self._cut(ordered[start : start + size])
            total += self._attempt(self._sum_of_losses, batch, stream=1 + start)
            items += batch.items
        return total / max(1, items)

    def _sum_of_losses(self, batch: Batch) -> float:
        return sum(float(loss) for loss in self._losses(batch, items=1))

    @torch.no_grad()
    def loss_is_finite(self) -> bool:
        """Whether the rows of the last step with a finite loss still have a finite loss."""
        batch = self._last_good
        return batch is None or all(bool(loss.isfinite()) for loss in self._losses(batch, batch.items))

    def _losses(self, batch: Batch, items: int) -> list[Tensor]:
        device = self.accelerator.device
        self._stage.before_batch(self.model, batch.rows)
        return [self._module(send_to_device(each, device), items)[0] for each in batch.micro_batches]


def batches_per_epoch(rows: int, batch_size: int, updates: int) -> int:
    """Returns the number of batches in an epoch.

    Args:
        rows: Rows of the data.
        batch_size: Maximum rows of a batch.
        updates: Optimizer steps on the same batch; with more than one, an incomplete last batch is left out.

    Example:
        >>> batches_per_epoch(20, 8, 1), batches_per_epoch(20, 8, 4), batches_per_epoch(5, 8, 4)
        (3, 2, 1)
    """
    size = min(batch_size, rows)
    return math.ceil(rows / size) if updates == 1 else rows // size


@lru_cache(maxsize=1)
def _order(rows: int, seed: int) -> Tensor:
    """Returns the order of rows in an epoch, the same as that of accelerate's `SeedableRandomSampler`."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


def seed_generators(*numbers: int) -> None:
    """Seeds Python, NumPy and torch, so that all further random numbers depend on these numbers only."""
    set_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
