"""The tidy table of a run: one row for each model × variant × task × metric × seed, costs beside it.

Means over seeds or folds are rows of their own, after those of the trainings: `trainings` says over how many, `deviation` is
their standard deviation, and no costs stand beside them.

Units are in the column names, as in `run.json`; an empty field is not applicable or not known. A variant without scores
has one row with its costs and its error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.report.numbers import one_line
from harness.report.summary import model_name, ranks
from harness.results import Delta, Replicated, Run, Score, Variant

_RUN = ("model", "model_digest", "device", "harness", "created", "config_sha256", "baseline")
_VARIANT = ("variant", "spec", "method", "status", "error", "seed")
_SCORE = ("task", "trained_on", "metric", "headline", "higher_is_better", "value", "low", "high", "n", "macro",
          "trainings", "deviation")  # fmt: skip
_DELTA = ("delta", "delta_low", "delta_high", "p", "p_holm", "verdict", "rank")
_PROTOCOL = ("task_version", "shots", "mode", "numerics", "engine", "dtype", "chat_template", "prompt_sha256")
_TRAIN = ("train_seconds", "tokens_per_second", "steps", "lr", "batch_size", "final_loss", "validation_loss", "peak_gpu_allocated_bytes",
          "peak_gpu_reserved_bytes", "peak_rss_bytes", "energy_joules")  # fmt: skip
_INFERENCE = ("load_seconds", "prompt_tokens", "prefill_seconds_p50", "prefill_seconds_p90", "prefill_seconds_p99",
              "decode_seconds_per_token_p50", "decode_seconds_per_token_p90", "decode_seconds_per_token_p99",
              "peak_gpu_allocated_bytes", "peak_gpu_reserved_bytes", "peak_rss_bytes")  # fmt: skip

COLUMNS = (
    *_RUN,
    *_VARIANT,
    *_SCORE,
    *_DELTA,
    *_PROTOCOL,
    "total_parameters",
    "trainable_parameters",
    "model_bytes",
    "artifact_bytes",
    *(name if name == "train_seconds" else f"train_{name}" for name in _TRAIN),
    *(f"inference_{name}" for name in _INFERENCE),
)


def tidy(run: Run) -> Iterator[dict[str, Any]]:
    """The rows of a run, each a value for some of `COLUMNS`.

    Example:
        >>> [(row["variant"], row["task"], row["value"]) for row in tidy(run)]  # doctest: +SKIP
        [('base', 'gsm8k', 0.324), ('lora', 'gsm8k', 0.412)]
    """
    environment = run.environment
    about = {
        "model": model_name(run),
        "model_digest": (environment.get("model") or {}).get("digest"),
        "device": environment.get("device_name") or environment.get("cpu") or environment.get("device"),
        "harness": run.harness,
        "created": run.created,
        "config_sha256": run.config_sha256,
        "baseline": run.baseline,
    }
    placed = {task.name: ranks(run, task) for task in run.tasks}
    for variant in run.variants:
        costs = about | _costs(run, variant)
        for score in variant.scores:
            yield costs | _score(run, score) | {"rank": _rank(run, placed, variant, score)}
        if not variant.scores:
            yield costs
    for several in run.replicated:
        yield about | _several(run, several)


def _costs(run: Run, variant: Variant) -> dict[str, Any]:
    found: dict[str, Any] = {
        "variant": variant.name,
        "spec": variant.spec,
        "method": variant.method,
        "status": variant.status,
        "error": one_line(variant.error) if variant.error else None,
        "seed": variant.train.seed if variant.train else run.seed,
        "model_bytes": variant.model_bytes,
    }
    if variant.parameters is not None:
        found |= {"total_parameters": variant.parameters.total, "trainable_parameters": variant.parameters.trainable}
    if variant.artifact is not None:
        found["artifact_bytes"] = variant.artifact.bytes
    for prefix, part, names in (("train_", variant.train, _TRAIN), ("inference_", variant.inference, _INFERENCE)):
        if part is not None:
            found |= {name if name == "train_seconds" else prefix + name: getattr(part, name) for name in names}
    return found


def _score(run: Run, score: Score) -> dict[str, Any]:
    task = next(task for task in run.tasks if task.name == score.task)
    protocol = score.protocol.model_dump()
    found = {
        "task": task.name,
        "trained_on": task.trained_on,
        "metric": score.metric,
        "headline": score.metric == task.headline,
        "higher_is_better": next(info.higher_is_better for info in task.metrics if info.name == score.metric),
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": score.n,
        "macro": score.macro,
        "task_version": score.protocol.version,
    } | {name: protocol[name] for name in _PROTOCOL if name != "task_version"}
    return found | _delta(score.delta)


def _several(run: Run, found: Replicated) -> dict[str, Any]:
    """A mean over trainings; where it is of a loss of held-out rows, there is no such task."""
    task = next((task for task in run.tasks if task.name == found.task), None)
    higher = [info.higher_is_better for info in task.metrics if info.name == found.metric] if task else [False]
    return {
        "variant": found.variant,
        "spec": run.variant(found.variant).spec,
        "method": run.variant(found.variant).method,
        "task": found.task,
        "trained_on": task and task.trained_on,
        "metric": found.metric,
        "headline": True,
        "higher_is_better": higher[0],
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": task and task.n,
        "trainings": len(found.trainings),
        "deviation": found.deviation,
    } | _delta(found.delta)


def _delta(delta: Delta | None) -> dict[str, Any]:
    if delta is None:
        return {}
    return {"delta": delta.value, "delta_low": delta.low, "delta_high": delta.high, "p": delta.p, "p_holm": delta.p_holm,
            "verdict": delta.verdict}  # fmt: skip


def _rank(run: Run, placed: dict[str, dict[str, int]], variant: Variant, score: Score) -> int | None:
    headline = next(task.headline for task in run.tasks if task.name == score.task)
    return placed[score.task].get(variant.name) if score.metric == headline else None
