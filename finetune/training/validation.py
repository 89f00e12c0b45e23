"""Looks at held-out rows while a model trains: their loss, and where a task says what is best, its headline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from harness.api import Metric, Output
from harness.engine.runner import Runner
from harness.jobs import Item, Monitor, Raw, TaskRequests
from harness.registry.find import find
from harness.registry.load import load_task, task_metrics
from harness.tokens.encode import Encoder

LOOKS = 10
"""Looks of a training that names no distance between them."""
_TOKENS_AT_ONCE = {"cpu": 512, "cuda": 4096}


def distance(steps: int, evaluate_every: int | None) -> int:
    """Steps from one look to the next.

    Example:
        >>> distance(250, None), distance(250, 40), distance(4, None)
        (25, 40, 1)
    """
    return evaluate_every or max(1, steps // LOOKS)


class Headline:
    """The first metric of a task, of a model in training.

    Args:
        monitor: The task, and its items.
        tokenizer: The model's.
        context: Tokens that the model takes.
        seed: Of draws.
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
        """The metric over all items; NaN where they make no number."""
        runner = Runner(
            model,
            self._tokenizer,
            engine="auto",
            numerics="fp32",
            token_budget=_TOKENS_AT_ONCE.get(model.device.type, _TOKENS_AT_ONCE["cpu"]),
            max_rows=None,
            seed=self._seed,
        )
        return headline(
            self.metric, self._items, [raw for pack in runner.plan(self._encoded) for raw in runner.run(pack)]
        )


def headline(metric: Metric, items: Sequence[Item], raws: Sequence[Raw]) -> float:
    """One metric of what a model gave for items.

    Args:
        metric: In any of its forms.
        items: Of a task.
        raws: In any order; each names its item.
    """
    measured = [
        metric.measure(Output(raw.texts, raw.loglikelihoods, raw.is_greedy, raw.tokens), items[raw.index].sample)
        for raw in sorted(raws, key=lambda raw: raw.index)
    ]
    try:
        if metric.whole is not None:
            return float(metric.whole(measured))
        if metric.value is not None:
            return float(metric.value(tuple(map(sum, zip(*measured, strict=True)))))
        return float(sum(measured)) / len(measured)
    except (ArithmeticError, ValueError):
        return math.nan


class Undisturbed:
    """Evaluation in the midst of training: no dropout, no gradients, and the draws of training go on as if nothing had been.

    Example:
        >>> with Undisturbed(model):  # doctest: +SKIP
        ...     headline.measure(model)
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._without_gradients = torch.no_grad()
        devices = [model.device] if model.device.type == "cuda" else []
        self._draws = torch.random.fork_rng(devices)

    def __enter__(self) -> None:
        self._model.eval()
        self._draws.__enter__()
        self._without_gradients.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._without_gradients.__exit__(*error)
        self._draws.__exit__(*error)
        self._model.train()
