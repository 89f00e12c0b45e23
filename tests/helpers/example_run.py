"""A run with invented numbers that covers all parts of a report: four variants, seven tasks, optionally a failure."""

from __future__ import annotations

import math
from typing import Any

from harness.results import Run

SAMPLES = 200
TASKS: dict[str, tuple[str, bool, bool]] = {
    # headline, higher is better, trained on
    "mini_mmlu": ("acc", True, False),
    "mini_gsm8k": ("strict", True, True),
    "mini_code": ("pass@1", True, True),
    "mini_ceval": ("acc", True, False),
    "mini_translation": ("bleu", True, True),
    "mini_summary": ("rouge1", True, True),
    "mini_text": ("word_ppl", False, False),
}
VALUES = {
    "base": (0.61, 0.02, 0.31, 0.55, 8.1, 0.214, 18.20),
    "lora": (0.54, 0.93, 0.64, 0.56, 41.7, 0.622, 18.96),
    "qlora": (0.53, 0.91, 0.60, 0.54, 39.9, 0.611, 19.31),
    "full": (0.49, 0.95, 0.71, 0.47, 46.2, 0.655, 21.40),
}
COSTS: dict[str, tuple[float, int, int, int, float, float]] = {
    # training seconds, peak bytes, trainable, artifact bytes, prefill and decode relative to the base
    "lora": (124.0, 8_482_560_410, 10_100_000, 40_400_000, 1.15, 1.23),
    "qlora": (177.0, 5_153_960_755, 10_100_000, 40_400_000, 1.84, 1.87),
    "full": (301.0, 17_179_869_184, 596_000_000, 1_192_000_000, 1.0, 1.0),
}


def example_run(*names: str, tasks: int = 7, fail: str | None = None, **changes: Any) -> Run:
    """Makes a finished run.

    Args:
        names: Variants; the first is the baseline. Default: `base`, `lora` and `qlora`.
        tasks: Number of tasks, at most seven.
        fail: A variant that ran out of memory.
        changes: Fields of the document to replace.
    """
    names = names or ("base", "lora", "qlora")
    shown = list(TASKS)[:tasks]
    alive = [name for name in names if name != fail]
    document: dict[str, Any] = {
        "schema": 1,
        "harness": "0.1.0",
        "created": "2026-11-20T23:55:00+00:00",
        "command": f"harness compare {' '.join(names)} --model Qwen/Qwen3-0.6B --limit {SAMPLES}",
        "config": {"model": "Qwen/Qwen3-0.6B", "limit": SAMPLES, "variants": {name: {} for name in names}},
        "config_sha256": "5f" * 32,
        "environment": {
            "device": "cuda:0",
            "device_name": "NVIDIA H100 80GB HBM3",
            "dtype": "bfloat16",
            "packages": {"torch": "2.13.0+cu130", "transformers": "5.23.0", "peft": "0.21.0"},
            "model": {"name": "Qwen/Qwen3-0.6B", "digest": "c1899de2", "parameters": 596_000_000},
        },
        "baseline": names[0],
        "seed": 0,
        "notes": ["full used lr 1e-05; others 2e-04"] if "full" in names else [],
        "tasks": [
            {
                "name": task,
                "n": SAMPLES,
                "trained_on": trained_on,
                "headline": metric,
                "metrics": [
                    {"name": metric, "higher_is_better": higher},
                    {"name": "token_ppl", "higher_is_better": False},
                ],
                "smallest_difference": 0.08 if higher and metric != "bleu" else 2.5,
            }
            for task, (metric, higher, trained_on) in TASKS.items()
            if task in shown
        ],
        "variants": [_variant(name, names[0], shown, failed=name == fail) for name in names],
        "comparisons": [
            {
                "task": task,
                "metric": TASKS[task][0],
                "a": a,
                "b": b,
                "test": "paired bootstrap",
                **_difference(task, a, b),
            }
            for i, b in enumerate(alive)
            for a in alive[i + 1 :]
            for task in shown
        ],
    }
    return Run.model_validate(document | changes)


def _variant(name: str, baseline: str, tasks: list[str], *, failed: bool) -> dict[str, Any]:
    spec = {"base": "base", "full": "full:checkpointing=False"}.get(name, f"{name}:rank=16,alpha=32")
    start = {"name": name, "spec": spec, "method": None if name == "base" else name}
    if failed:
        return start | {"status": "failed", "error": "out of memory (needs > 79 GiB)\ntorch.OutOfMemoryError: CUDA"}
    seconds, peak, trainable, artifact, prefill, decode = COSTS.get(name, (0.0, 0, 0, 0, 1.0, 1.0))
    train = {
        "train_seconds": seconds,
        "block_seconds": [seconds / 5 * factor for factor in (0.98, 0.99, 1.0, 1.01, 1.02)],
        "tokens": 1_000_000,
        "tokens_per_second": 1_000_000 / (seconds or 1),
        "steps": 250,
        "lr": 2e-4,
        "batch_size": 16,
        "seed": 0,
        "samples": 2000,
        "final_loss": 1.31,
        "curve": "still falling: more steps may help" if name == "qlora" else "converged",
        "peak_gpu_allocated_bytes": peak,
        "peak_gpu_reserved_bytes": int(peak * 1.2),
        "peak_rss_bytes": 3_000_000_000,
    }
    return start | {
        "status": "done",
        "hyperparameters": {} if name == "base" else {"rank": 16, "alpha": 32},
        "parameters": {"total": 596_000_000 + trainable % 596_000_000, "trainable": trainable},
        "model_bytes": 560_000_000 if name == "qlora" else 1_192_000_000,
        "train": train if name != "base" else None,
        "artifact": {"path": f"adapters/{name}-1a2b3c", "bytes": artifact} if name != "base" else None,
        "inference": _inference(0.0182, prefill, 0.0091, decode),
        "scores": [score for task in tasks for score in _scores(name, baseline, task)],
    }


def _inference(prefill: float, prefill_ratio: float, decode: float, decode_ratio: float) -> dict[str, Any]:
    times: dict[str, Any] = {}
    for key, seconds in (
        ("prefill_seconds", prefill * prefill_ratio),
        ("decode_seconds_per_token", decode * decode_ratio),
    ):
        times |= {f"{key}_p50": seconds, f"{key}_p90": seconds * 1.1, f"{key}_p99": seconds * 1.4}
    return times | {
        "load_seconds": 1.2,
        "prompt_tokens": 512,
        "new_tokens": 64,
        "batch_size": 1,
        "warmup": 2,
        "repeats": 3,
        "raw_seconds": {
            "prefill": [prefill * prefill_ratio] * 3,
            "decode": [decode * decode_ratio] * 3 * 64,
            "base_prefill": [prefill * factor for factor in (0.99, 1.0, 1 / 0.99)],
            "base_decode": [decode] * 3 * 64,
        },
        "base_prefill_seconds_p50": prefill,
        "base_decode_seconds_per_token_p50": decode,
        "throughput": [{"batch_size": 8, "tokens_per_second": 640.0}],
    }


def _scores(name: str, baseline: str, task: str) -> list[dict[str, Any]]:
    metric, _, _ = TASKS[task]
    value = VALUES[name][list(TASKS).index(task)]
    half = _half_width(task, value)
    protocol = {
        "version": 1,
        "shots": 0,
        "mode": "loglikelihood" if metric in ("acc", "word_ppl") else "generate",
        "numerics": "fp32",
        "engine": "auto",
        "dtype": "bfloat16",
        "chat_template": None,
        "token_budget": 4096,
        "prompt_sha256": "ab" * 32,
    }
    headline = {"task": task, "metric": metric, "value": value, "low": value - half, "high": value + half}
    if name != baseline:
        found = _difference(task, name, baseline)
        headline["delta"] = found | {"verdict": _verdict(task, found)}
    beyond = {"task": task, "metric": "token_ppl", "value": 2.125, "low": 2.0, "high": 2.25}
    return [score | {"n": SAMPLES, "protocol": protocol} for score in (headline, beyond)]


def _half_width(task: str, value: float) -> float:
    return 1.96 * math.sqrt(value * (1 - value) / SAMPLES) if value < 1 else 0.05 * value


def _difference(task: str, a: str, b: str) -> dict[str, float]:
    index = list(TASKS).index(task)
    value, half = VALUES[a][index] - VALUES[b][index], 0.7 * _half_width(task, VALUES[b][index])
    p = math.erfc(abs(value) / (half / 1.96) / math.sqrt(2))
    return {"value": value, "low": value - half, "high": value + half, "p": p, "p_holm": min(1.0, 14 * p)}


def _verdict(task: str, found: dict[str, float]) -> str:
    if found["p_holm"] >= 0.05:
        return "undecided"
    return "better" if (found["value"] > 0) == TASKS[task][1] else "worse"
