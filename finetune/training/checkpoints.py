"""Checkpoints of a training run: the trained tensors, the optimizer's state, and the progress of the run.

Each is a folder `checkpoint-STEP`, written completely or not at all. The newest one and the one of the best evaluation are kept.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from harness.finetune.training.adaptive_rank import AdaptiveRank
from harness.models.artifacts import trained_tensors
from harness.storage import whole_folder

_TENSORS_FILE, _OPTIMIZER_FILE, _RECORD_FILE = "trained.safetensors", "optimizer.pt", "checkpoint.json"


@dataclass
class Position:
    """The progress of a training run.

    Example:
        >>> progress = Position(most_rows=8, step=3)
        >>> progress.evaluated(0.5, higher_is_better=False), progress.evaluated(0.7, higher_is_better=False)
        (True, False)
        >>> progress.best_step, progress.evaluations_without_gain
        (3, 1)
    """

    most_rows: int
    """Maximum rows of a micro-batch; smaller after memory ran out."""
    step: int = 0
    """Optimizer steps made."""
    best_step: int | None = None
    best_value: float | None = None
    evaluations_without_gain: int = 0
    """Evaluations since the best one."""

    def evaluated(self, value: float, higher_is_better: bool) -> bool:
        """Records an evaluation; returns whether it is the best so far. A value that is not finite never is."""
        best = math.isfinite(value) and (
            self.best_value is None or (value > self.best_value if higher_is_better else value < self.best_value)
        )
        if best:
            self.best_step, self.best_value, self.evaluations_without_gain = self.step, value, 0
        else:
            self.evaluations_without_gain += 1
        return best


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        folder: Folder of the checkpoints.
        train_key: Identifies the run; a checkpoint of another run is not resumed from.
        model: Its trained tensors are saved.
        optimizer: Its state is saved.
        scaler: Gradient scaler of fp16; None without fp16.
        ranks: AdaLoRA's ranks; None for other methods.
    """

    def __init__(
        self, folder: Path, train_key: str, model: Any, optimizer: Any, scaler: Any, ranks: AdaptiveRank | None
    ) -> None:
        self._folder, self._key, self._model, self._ranks = folder, train_key, model, ranks
        self._stateful = {"optimizer": optimizer} | ({} if scaler is None else {"scaler": scaler})

    def newest(self) -> tuple[Position | None, bool]:
        """Returns the progress of the newest checkpoint, and whether there are checkpoints of another run."""
        found, foreign = None, False
        for folder in self._folder.glob("checkpoint-*[0-9]"):
            try:
                record = json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8"))
                same, progress = record.pop("train_key") == self._key, Position(**record)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # incomplete, or from another version
            foreign |= not same
            if same and (found is None or progress.step > found.step):
                found = progress
        return found, foreign

    def save(self, progress: Position) -> None:
        """Saves a checkpoint, and removes those that are neither the newest nor the best."""
        with whole_folder(self._place(progress.step)) as folder:
            save_file(trained_tensors(self._model), folder / _TENSORS_FILE)
            torch.save({name: each.state_dict() for name, each in self._stateful.items()}, folder / _OPTIMIZER_FILE)
            if self._ranks is not None:
                self._ranks.save(folder)
            record = {"train_key": self._key, **asdict(progress)}
            (folder / _RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
        kept = {self._place(step) for step in (progress.step, progress.best_step) if step is not None}
        for folder in set(self._folder.glob("checkpoint-*")) - kept:
            shutil.rmtree(folder, ignore_errors=True)

    def load(self, step: int) -> None:
        """Restores weights and optimizer as they were after a step."""
        self.load_weights(step)
        states = torch.load(self._place(step) / _OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        for name, each in self._stateful.items():
            each.load_state_dict(states[name])

    def load_weights(self, step: int) -> None:
        """Restores the weights as they were after a step, including AdaLoRA's ranks."""
        tensors = load_file(self._place(step) / _TENSORS_FILE)
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(tensors[name])
        if self._ranks is not None:
            self._ranks.load(self._place(step))

    def _place(self, step: int) -> Path:
        return self._folder / f"checkpoint-{step}"
