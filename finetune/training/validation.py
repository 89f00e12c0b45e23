"""Evaluations of a model in training: the loss of held-out rows, and the first metric of the monitored task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.api import Metric
from harness.engine.runner import Runner
from harness.jobs import Item, Monitor, Raw, TaskRequests
from harness.prompts.thoughts import output_of
from harness.registry.find import find
from harness.registry.load import load_task, task_metrics
from harness.tokens.encode import Encoder
from harness.tokens.packs import token_budget

EVALUATIONS = 10
"""Number of evaluations in a training run without `evaluate_every`."""


def distance(steps: int, evaluate_every: int | None) -> int:
    """Returns the steps from one evaluation to the next.

    Example:
        >>> distance(250, None), distance(250, 40), distance(4, None)
        (25, 40, 1)
    """
    return evaluate_every or max(1, steps // EVALUATIONS)


class Headline:
    """Measures the first metric of a task on a model in training.

    Args:
        monitor: The task, and its items.
        tokenizer: The model's.
        context: Maximum tokens of the model.
        seed: For sampled answers.
    """

    def __init__(self, monitor: Monitor, tokenizer: Any, *, context: int, seed: int) -> None:
        entry = find("task", monitor.task)
        task = load_task(entry, monitor.parameters)
        self.metric: Metric = task_metrics(task, entry.path.parent)[0]
        self._items = monitor.items
        self._tokenizer = tokenizer
        self._seed = seed
        requests = TaskRequests(monitor.task, [item.request for item in monitor.items])
        self._encoded = Encoder(tokenizer, context).encode(requests)

    def measure(self, model: Any) -> float:
        """Returns the metric over all items; NaN if it is undefined for them."""
        runner = Runner(
            model,
            self._tokenizer,
            engine="auto",
            numerics="fp32",
            token_budget=token_budget(model.device.type),
            max_rows=None,
            seed=self._seed,
        )
        return headline(
            self.metric, self._items, [raw for pack in runner.plan(self._encoded) for raw in runner.run(pack)]
        )


def headline(metric: Metric, items: Sequence[Item], raws: Sequence[Raw]) -> float:
    """Computes a metric over the outputs of a model; NaN if it is undefined for them.

    Args:
        metric: A metric in any of its forms.
        items: Items of a task.
        raws: Outputs in any order; each names its item.
    """
    measured = []
    for raw in sorted(raws, key=lambda raw: raw.index):
        item = items[raw.index]
        measured.append(metric.measure(output_of(raw, item.request), item.sample))
    try:
        if metric.whole is not None:
            return float(metric.whole(measured))
        if metric.value is not None:
            return float(metric.value(tuple(map(sum, zip(*measured, strict=True)))))
        return float(sum(measured)) / len(measured)
    except (ArithmeticError, ValueError):
        return math.nan


@dataclass(frozen=True)
class Validation:
    """The evaluations of a training run: on which rows, by which metric, and how often."""

    rows: Sequence[dict[str, Any]]
    """Tokenised held-out rows; empty: only the headline metric is measured."""
    headline: Headline | None
    """Decides which evaluation is best; None: the loss of the rows decides."""
    every: int
    """Steps between two evaluations."""

    @property
    def measure(self) -> str:
        """The figure by which evaluations are compared."""
        return "loss" if self.headline is None else "headline"

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher figure is better."""
        return self.headline is not None and self.headline.metric.higher_is_better


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turns off dropout and gradients within the block; afterwards the model returns to its previous mode."""
    training = model.training
    model.eval()
    torch.clear_autocast_cache()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()  # copies cached here carry no gradients
        model.train(training)
