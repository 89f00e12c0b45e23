"""A run with given scores: every pair of variants differs by known numbers with intervals of known width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.results import Run, verdict_of

MIB = 1024**2


def hand_made_run(
    scores: Mapping[str, tuple[float, ...]],
    *,
    tasks: Mapping[str, str],
    half: float = 0.01,
    lower_is_better: tuple[str, ...] = (),
    trained_for: Mapping[str, tuple[str, ...]] | None = None,
    memory: Mapping[str, int] | None = None,
    train: Mapping[str, dict[str, Any]] | None = None,
    failed: tuple[str, ...] = (),
    untestable: tuple[str, ...] = (),
    **changes: Any,
) -> Run:
    """Makes a finished run whose first variant is the baseline.

    Args:
        scores: The headline of every task, in order, by variant.
        tasks: Headline by task; the names of those that were trained on begin with `t`.
        half: Half the width of every interval.
        lower_is_better: Tasks whose headline is better when it is lower.
        trained_for: Tasks in the record of each trained variant; without it, the record names none, as in older documents.
            A variant whose name begins with `base` is not trained.
        memory: Peak memory in training, in MiB, by variant.
        train: Other fields of the records of training.
        failed: Variants that failed; they have no scores.
        untestable: Tasks without a valid test.
        changes: Fields of the document to replace.
    """
    names = list(scores)
    alive = [name for name in names if name not in failed]

    def difference(task: str, a: str, b: str) -> dict[str, Any]:
        place = list(tasks).index(task)
        value = scores[a][place] - scores[b][place]
        shown = abs(value) > half and task not in untestable
        found = {"value": value, "low": value - half, "high": value + half, "p": 0.001 if shown else 0.5}
        verdict = verdict_of(value, found["p"], task not in lower_is_better)
        return found | {"p_holm": found["p"], "verdict": verdict, "untestable": "few" if task in untestable else None}

    def record(name: str) -> dict[str, Any]:
        data = {"name": "x", "sha256": "x", "rows": 9, "duplicates": 0, "cut": 0, "dropped": 0, "lost_tokens": 0}
        if trained_for is not None:
            data["tasks"] = trained_for[name]
        peak = (memory or {}).get(name)
        settings = {"steps": 9, "lr": 1e-3, "batch_size": 1, "seed": 0, "samples": 9, "final_loss": 1.0}
        return {"train_seconds": 9.0, "tokens": 9, "tokens_per_second": 1.0, "curve": "converged", "data": data,
                "peak_rss_bytes": None if peak is None else peak * MIB, **settings, **(train or {}).get(name, {})}  # fmt: skip

    def score(name: str, task: str, metric: str) -> dict[str, Any]:
        value = scores[name][list(tasks).index(task)]
        protocol = {"version": 1, "shots": 0, "mode": "generate", "numerics": "fp32", "engine": "auto", "dtype": "float32",
                    "chat_template": None, "token_budget": 1, "prompt_sha256": "x"}  # fmt: skip
        delta = None if name == names[0] or names[0] in failed else difference(task, name, names[0])
        return {"task": task, "metric": metric, "value": value, "low": value, "high": value, "n": 9,
                "protocol": protocol, "delta": delta}  # fmt: skip

    document: dict[str, Any] = {
        "schema": 1, "harness": "0", "created": "2026", "command": "harness compare", "config": {}, "config_sha256": "x",
        "environment": {}, "baseline": names[0], "seed": 0,
        "tasks": [
            {"name": task, "n": 9, "trained_on": task.startswith("t"), "headline": metric,
             "metrics": [{"name": metric, "higher_is_better": task not in lower_is_better}]}
            for task, metric in tasks.items()
        ],
        "variants": [
            {"name": name, "spec": name, "method": None if name.startswith("base") else "lora",
             "status": "failed" if name in failed else "done", "error": "out of memory" if name in failed else None,
             "train": None if name in failed or name.startswith("base") else record(name),
             "scores": [] if name in failed else [score(name, task, metric) for task, metric in tasks.items()]}
            for name in names
        ],
        "comparisons": [
            {"task": task, "metric": metric, "a": a, "b": b, "test": "mcnemar mid-p", **difference(task, a, b)}
            for i, b in enumerate(alive)
            for a in alive[i + 1 :]
            for task, metric in tasks.items()
        ],
    }  # fmt: skip
    return Run.model_validate(document | changes)
