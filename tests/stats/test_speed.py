"""Seconds of one core for all statistics of a large comparison: 14,000 samples, five variants, ten tasks."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from scored_rows import scored

from harness import Metric
from harness.comparison.scores import compute_scores
from harness.metrics import acc, auc, bleu, f1, macro_f1, mc2, rougeL, word_ppl
from harness.prepare.tasks import ScoredTask
from harness.results import Protocol

PROTOCOL = Protocol(
    version=1, shots=0, mode="generate", numerics="fp32", engine="plain", dtype="float32", chat_template=None,
    token_budget=8, prompt_sha256="0",
)  # fmt: skip
VARIANTS = ("base", "lora", "qlora", "prefix", "full")


def bleu_counts(rng: np.random.Generator, n: int) -> Any:
    words = rng.integers(5, 41, n)
    totals = np.maximum(words[:, None] - np.arange(4), 0)
    found = rng.binomial(totals, rng.beta(6, 3, n)[:, None] ** np.arange(1, 5))
    return np.column_stack([words, words + rng.integers(-2, 3, n), found, totals]).astype(float)


def label_counts(rng: np.random.Generator, n: int, wanted: Any) -> Any:
    predicted = np.where(rng.random(n) < 0.8, wanted, rng.integers(0, 3, n))
    one = np.eye(3)
    return np.column_stack([one[wanted] * (wanted == predicted)[:, None], one[predicted], one[wanted]])


def comparison(n: int) -> tuple[list[ScoredTask], dict[str, dict[str, Any]]]:
    """Makes ten tasks of every kind of metric, two of them in groups and one in clusters."""
    rng = np.random.default_rng(0)
    ease, wanted, words = rng.random(n), rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.lognormal(4, 1, n).astype(int) + 5.0
    groups, clusters = [f"subject {each % 57}" for each in range(n)], [str(each // 10) for each in range(n)]

    def graded() -> Any:
        return np.where(rng.random(n) < 0.25, 0.0, np.clip(0.6 * ease + rng.normal(0, 0.1, n), 0, 1))

    def right() -> Any:
        return (0.5 * ease + 0.5 * rng.random(n) > 0.4).astype(float)

    def area() -> Any:
        return [
            [float(each == 1), score] for each, score in zip(wanted, rng.normal(wanted == 1, 1).tolist(), strict=True)
        ]

    makers: list[tuple[str, list[tuple[Metric, Any]], str]] = [
        ("choice", [(acc, right)], ""),
        ("subjects", [(acc, right), (mc2, graded)], "group"),
        ("passages", [(f1, graded)], "cluster"),
        ("answers", [(f1, graded)], ""),
        ("summaries", [(rougeL, graded)], ""),
        ("translation", [(bleu, lambda: bleu_counts(rng, n))], ""),
        ("texts", [(word_ppl, lambda: np.column_stack([-words * rng.gamma(4, 0.7, n), words]))], ""),
        ("labels", [(macro_f1, lambda: label_counts(rng, n, wanted))], "group"),
        ("areas", [(auc, area)], ""),
        ("truth", [(mc2, graded), (acc, right)], ""),
    ]  # fmt: skip
    tasks = [scored(name, *(metric for metric, _ in metrics)) for name, metrics, _ in makers]
    rows: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        rows[variant] = {}
        for name, metrics, labels in makers:
            made = [(metric.name, np.asarray(make()).tolist()) for metric, make in metrics]
            rows[variant][name] = [
                {"id": str(k), "group": groups[k] if labels == "group" else None, "truncated": False,
                 "cluster": clusters[k] if labels == "cluster" else None, "metrics": {m: v[k] for m, v in made}}
                for k in range(n)
            ]  # fmt: skip
    return tasks, rows


def seconds_of(n: int) -> float:
    tasks, rows = comparison(n)
    protocols = {name: {task.name: PROTOCOL for task in tasks} for name in rows}
    began = time.process_time()
    found = compute_scores(tasks, rows, protocols, "base", seed=0)
    took = time.process_time() - began
    assert found.tests == 100 and all(score.low is not None for scores in found.by_variant.values() for score in scores)
    return took


def test_statistics_of_a_comparison_take_a_fraction_of_a_second() -> None:
    assert seconds_of(500) < 3  # 0.3 s of an idle core


@pytest.mark.slow
def test_statistics_of_the_largest_comparison_take_less_than_ten_seconds() -> None:
    """It takes about 3 s; with 10,000 bootstrap resamples it took five to seven minutes."""
    assert seconds_of(14_000) < 10
