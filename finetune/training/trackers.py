"""Trackers of a training run: TensorBoard, Weights & Biases and MLflow, through transformers' callbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks


class Trackers:
    """Sends the figures of steps and evaluations to transformers' callbacks.

    Args:
        names: Names of trackers: `tensorboard`, `wandb`, `mlflow`.
        arguments: Recorded as the settings of the run.
        model: Its configuration is recorded.
    """

    def __init__(self, names: Sequence[str], arguments: TrainingArguments, model: Any) -> None:
        self._arguments, self._model = arguments, model
        self._callbacks = [callback() for callback in get_reporting_integration_callbacks(list(names))]
        self._state = TrainerState(max_steps=arguments.max_steps, logging_steps=1)
        self._control = TrainerControl()

    def begin(self) -> None:
        """Opens the trackers."""
        self._call("on_train_begin")

    def step(self, number: int, figures: Mapping[str, Any]) -> None:
        """Sends the figures of a step."""
        self._state.global_step = number
        self._call("on_log", logs=dict(figures))

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Sends the figures of an evaluation; trackers group them by their prefix `eval_`."""
        self._state.global_step = step
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self._call("on_log", logs=dict(metrics))
        self._call("on_evaluate", metrics=metrics)

    def saved(self, step: int) -> None:
        """Announces a new checkpoint, which some trackers copy."""
        self._state.global_step = step
        self._call("on_save")

    def end(self) -> None:
        """Closes the trackers."""
        self._call("on_train_end")

    def _call(self, event: str, **details: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(self._arguments, self._state, self._control, model=self._model, **details)
