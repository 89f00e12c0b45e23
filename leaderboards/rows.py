"""The tidy table of a run: one row for each model × variant × task × metric × seed, with costs.

Means over seeds or folds are separate rows at the end: `trainings` is the number of training runs, `deviation` their
standard deviation, and they have no costs. Like costs, a variant's mean changes are in each of its rows: in points, on the
tasks that it was trained for (`gain_trained`) and on the others (`change_other`).

Units are in the column names, as in `run.json`; an empty field is not applicable or not known. A variant without scores
has one row with its costs and its error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.report.gains import gains
from harness.report.header import device_name, model_name
from harness.report.numbers import one_line
from harness.report.scores import ranks
from harness.results import Delta, Gain, Replicated, Run, Score, TaskInfo, Variant

_RUN = ("model", "model_digest", "device", "harness", "created", "config_sha256", "baseline")
_VARIANT = ("variant", "spec", "method", "status", "error", "seed")
_SCORE = ("task", "trained_on", "metric", "headline", "higher_is_better", "value", "low", "high", "n", "macro",
          "trainings", "deviation")  # fmt: skip
_DELTA = ("delta", "delta_low", "delta_high", "p", "p_holm", "verdict", "tentative", "untestable", "decided", "rank",
          "rank_worst")  # fmt: skip
_GAIN = (
    "gain_trained",
    "gain_trained_low",
    "gain_trained_high",
    "change_other",
    "change_other_low",
    "change_other_high",
)
_PROTOCOL = ("task_version", "shots", "shared_shots", "mode", "numerics", "engine", "dtype", "form", "reader", "chat_template", "system", "think", "template_options",
             "prompt_sha256", "writer")  # fmt: skip
_TRAIN = ("train_seconds", "tokens_per_second", "steps", "lr", "batch_size", "final_loss", "validation_loss", "peak_gpu_allocated_bytes",
          "peak_gpu_reserved_bytes", "peak_rss_bytes", "energy_joules")  # fmt: skip
_INFERENCE = ("load_seconds", "prompt_tokens", "prefill_seconds_p50", "prefill_seconds_p90", "prefill_seconds_p99",
              "decode_seconds_per_token_p50", "decode_seconds_per_token_p90", "decode_seconds_per_token_p99",
              "peak_gpu_allocated_bytes", "peak_gpu_reserved_bytes", "peak_rss_bytes")  # fmt: skip

_MONEY = ("training", "million_prompt_tokens", "million_generated_tokens")

COLUMNS = (
    *_RUN,
    *_VARIANT,
    *_SCORE,
    *_DELTA,
    *_PROTOCOL,
    *_GAIN,
    "total_parameters",
    "trainable_parameters",
    "model_bytes",
    "artifact_bytes",
    *(name if name == "train_seconds" else f"train_{name}" for name in _TRAIN),
    *(f"inference_{name}" for name in _INFERENCE),
    "train_precision",
    "currency",
    "price_per_hour",
    *(f"cost_{name}" for name in _MONEY),
    "source",
)


def tidy(run: Run) -> Iterator[dict[str, Any]]:
    """Generates the rows of a run; each has values for some of `COLUMNS`.

    Example:
        >>> [(row["variant"], row["task"], row["value"]) for row in tidy(run)]  # doctest: +SKIP
        [('base', 'gsm8k', 0.324), ('lora', 'gsm8k', 0.412)]
    """
    about = {
        "model": model_name(run),
        "model_digest": (run.environment.get("model") or {}).get("digest"),
        "device": device_name(run),
        "harness": run.harness,
        "created": run.created,
        "config_sha256": run.config_sha256,
        "baseline": run.baseline,
    }
    tasks = {task.name: task for task in run.tasks}
    placed = {task.name: ranks(run, task) for task in run.tasks}
    points = {gain.variant: _points(gain) for gain in gains(run)}
    for variant in run.variants:
        costs = about | _costs(run, variant) | points.get(variant.name, {})
        for score in variant.scores:
            headline = score.metric == tasks[score.task].headline
            rank = placed[score.task].get(variant.name) if headline else None
            best, worst = rank or (None, None)
            yield costs | _score(tasks[score.task], score) | {"headline": headline, "rank": best, "rank_worst": worst}
        if not variant.scores:
            yield costs
    for mean in run.replicated:
        yield about | _mean(run, tasks.get(mean.task), mean)


def _points(gain: Gain) -> dict[str, float | None]:
    """The mean changes of a variant in points, on tasks that it was trained for and on others."""
    means = (gain.learned(), gain.kept())
    found = [None if mean is None else getattr(mean, end) for mean in means for end in ("value", "low", "high")]
    return dict(zip(_GAIN, found, strict=True))


def _costs(run: Run, variant: Variant) -> dict[str, Any]:
    found: dict[str, Any] = {
        "variant": variant.name,
        "spec": variant.spec,
        "method": variant.method,
        "status": variant.status,
        "error": one_line(variant.error) if variant.error else None,
        "seed": variant.train.seed if variant.train else run.seed,
        "model_bytes": variant.model_bytes,
        "source": variant.source and variant.source.tool,
    }
    if variant.parameters is not None:
        found |= {"total_parameters": variant.parameters.total, "trainable_parameters": variant.parameters.trainable}
    if variant.artifact is not None:
        found["artifact_bytes"] = variant.artifact.bytes
    for prefix, part, names in (("train_", variant.train, _TRAIN), ("inference_", variant.inference, _INFERENCE)):
        if part is not None:
            found |= {name if name == "train_seconds" else prefix + name: getattr(part, name) for name in names}
    if variant.train is not None:
        found["train_precision"] = variant.train.precision
    if run.price is not None and variant.money is not None:
        found |= {"currency": run.price.currency, "price_per_hour": run.price.per_hour}
        found |= {f"cost_{name}": getattr(variant.money, name) for name in _MONEY}
    return found


def _score(task: TaskInfo, score: Score) -> dict[str, Any]:
    protocol = score.protocol.model_dump()
    protocol["template_options"] = json.dumps(protocol["template_options"]) if protocol["template_options"] else None
    found = {
        "task": task.name,
        "trained_on": task.trained_on,
        "metric": score.metric,
        "higher_is_better": task.higher_is_better(score.metric),
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": score.n,
        "macro": score.macro,
        "task_version": None if score.protocol.version is None else str(score.protocol.version),
    } | {name: protocol[name] for name in _PROTOCOL if name != "task_version"}
    return found | _delta(score.delta)


def _mean(run: Run, task: TaskInfo | None, found: Replicated) -> dict[str, Any]:
    """The row of a mean over training runs; the loss of held-out rows belongs to no task."""
    variant = run.variant(found.variant)
    return {
        "variant": found.variant,
        "spec": variant.spec,
        "method": variant.method,
        "task": found.task,
        "trained_on": task and task.trained_on,
        "metric": found.metric,
        "headline": True,
        "higher_is_better": task.higher_is_better(found.metric) if task else False,
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
            "verdict": delta.verdict, "tentative": delta.tentative, "untestable": delta.untestable,
            "decided": delta.early and f"{delta.early.outcome} at {delta.early.n} of {delta.early.total}"}  # fmt: skip
