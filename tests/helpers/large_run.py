"""A run with invented numbers of any size: many variants and tasks, all pairs in one family, curves, groups and samples."""

from __future__ import annotations

import math
import random
from itertools import combinations
from typing import Any

from harness.results import Run, verdict_of
from harness.stats.paired import holm

NAMES = (
    "base", "fewshot", "lora", "qlora", "full", "dora", "rslora", "pissa", "lora:rank=4", "lora:rank=64", "adalora", "vera",
    "ia3", "bitfit", "prefix", "prompt", "中文-lora", "oft", "boft", "hra", "lora@merged", "lora@4bit", "loha", "lokr",
)  # fmt: skip
TASKS: tuple[tuple[str, str, bool, bool, float], ...] = (
    # name, headline, higher is better, trained on, value of the base
    ("gsm8k", "strict", True, True, 0.32),
    ("mmlu", "acc", True, False, 0.45),
    ("wmt_en_zh", "bleu", True, True, 21.0),
    ("wikitext", "word_ppl", False, False, 18.2),
    ("xsum", "rougeL", True, True, 0.21),
    ("ceval", "acc", True, False, 0.48),
    ("humaneval", "pass@1", True, True, 0.21),
)
SUBJECTS = ("anatomy", "business", "chemistry", "ethics", "law", "高等数学", "中国历史", "virology")
PROTOCOL = {
    "version": 1, "shots": 0, "mode": "generate", "numerics": "fp32", "engine": "auto", "dtype": "bfloat16",
    "chat_template": None, "token_budget": 4096, "prompt_sha256": "46b8c06d" * 8,
}  # fmt: skip
SAMPLES = 500


def large_run(variants: int, tasks: int, *, seed: int = 0, fail: int | None = 5, model: str = "Qwen/Qwen3-0.6B") -> Run:
    """Makes a finished run.

    Args:
        variants: Number of variants; the first is the baseline.
        tasks: Number of tasks.
        seed: Seed of all numbers.
        fail: Index of a variant that failed, if there are so many.
        model: Name of the model.
    """
    draw = random.Random(seed)
    names = [NAMES[n] if n < len(NAMES) else f"lora:rank={2 ** (n % 7)},seed={n}" for n in range(variants)]
    asked = [
        TASKS[n] if n < len(TASKS) else (f"mmlu:{SUBJECTS[n % 8]}{n}", "acc", True, False, 0.3) for n in range(tasks)
    ]
    failed = names[fail] if fail is not None and fail < variants else None
    alive = [name for name in names if name != failed]
    power = {
        n: 0.0 if n == "base" else 0.2 if n == "fewshot" else min(1.0, max(0.1, draw.gauss(0.75, 0.25))) for n in names
    }
    values: dict[tuple[str, str], tuple[float, float]] = {}
    for task, _, up, trained, base in asked:
        for name in alive:
            unit = 1 if base < 1 else base
            gain = (
                (power[name] * 0.22 if trained else -power[name] * 0.03 + draw.gauss(0, 0.01))
                * unit
                * (1 if up else -1.5)
            )
            value = base + gain
            half = 1.96 * math.sqrt(max(value * (1 - value), 0.01) / SAMPLES) if base < 1 else 0.02 * base
            values[task, name] = value, half

    def difference(task: str, a: str, b: str) -> dict[str, Any]:
        (x, p), (y, q) = values[task, a], values[task, b]
        half = 0.75 * math.hypot(p, q)
        share = min(0.97, max(0.03, 0.5 + (x - y) / (4 * half) * 0.1))
        return {"value": x - y, "low": x - y - half, "high": x - y + half, "p": math.erfc(abs(x - y) / half * 1.96 / math.sqrt(2)),
                "win_rate": share, "win_rate_low": max(0, share - 0.04), "win_rate_high": min(1, share + 0.04)}  # fmt: skip

    pairs = [(t, a, b, difference(t[0], a, b)) for t in asked for b, a in combinations(alive, 2)]
    for (task, _, _, found), p in zip(pairs, holm([found["p"] for *_, found in pairs]), strict=True):
        found |= {"p_holm": p, "verdict": verdict_of(found["value"], p, task[2])}
    deltas = {(task[0], a): found for task, a, b, found in pairs if b == names[0]}

    def groups(task: str, name: str) -> list[dict[str, Any]]:
        if task != "mmlu":
            return []
        moved = {subject: draw.gauss(0, 0.05) if name != names[0] else 0.0 for subject in SUBJECTS}
        return [
            {"name": s, "value": 0.45 + d, "n": 60, "low": 0.4 + d, "high": 0.5 + d,
             "delta": None if name == names[0] else {"value": d, "low": d - 0.1, "high": d + 0.1}}
            for s, d in moved.items()
        ]  # fmt: skip

    def variant(name: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": name,
            "spec": f"{name}:alpha=32",
            "method": None if name in NAMES[:2] else "lora",
        }
        if name == failed:
            return found | {"status": "failed", "error": "out of memory (needs more than 79 GiB)"}
        scores = []
        for task, metric, *_ in asked:
            value, half = values[task, name]
            scores.append({"task": task, "metric": metric, "value": value, "low": value - half, "high": value + half,
                           "n": SAMPLES, "protocol": PROTOCOL, "delta": deltas.get((task, name)), "groups": groups(task, name)})  # fmt: skip
        decode = 0.0091 * draw.uniform(1, 1.8)
        times = sorted(decode * draw.uniform(0.95, 1.1) for _ in range(100))
        return found | {
            "status": "done", "scores": scores, "model_bytes": int((0.36 if "qlora" in name else 1.2) * 1e9),
            "parameters": {"total": 600_000_000, "trainable": int(10 ** draw.uniform(4.6, 7.6))},
            "train": None if name in NAMES[:2] else _train(draw, power[name]),
            "artifact": None if name in NAMES[:2] else {"path": "adapters/x", "bytes": int(10 ** draw.uniform(5.5, 8))},
            "inference": _inference(decode, times),
        }  # fmt: skip

    return Run.model_validate({
        "schema": 1, "harness": "0.1.0", "created": f"2026-11-2{seed % 10}T10:00:00+00:00",
        "command": f"harness compare {' '.join(names[:6])} --model {model}", "config": {"model": model, "limit": SAMPLES},
        "config_sha256": f"{seed:02d}" * 32, "baseline": names[0], "seed": seed, "tests": len(pairs),
        "environment": {"device": "cuda:0", "device_name": "NVIDIA H100 80GB HBM3", "dtype": "bfloat16",
                        "packages": {"torch": "2.13.0"}, "model": {"name": model, "digest": "c1899de2"}},
        "tasks": [{"name": task, "n": SAMPLES, "trained_on": trained, "headline": metric,
                   "metrics": [{"name": metric, "higher_is_better": up}]} for task, metric, up, trained, _ in asked],
        "variants": [variant(name) for name in names],
        "comparisons": [{"task": t[0], "metric": t[1], "a": a, "b": b, "test": "mcnemar mid-p", **found} for t, a, b, found in pairs],
        "samples_shown": [_samples(task[0], alive, seed) for task in asked[:3]],
        "config_resolved": {"model": model, "limit": SAMPLES, "seeds": 1},
    })  # fmt: skip


def _train(draw: random.Random, power: float) -> dict[str, Any]:
    seconds = draw.uniform(90, 420)
    curve = [
        {"step": step, "loss": 1.2 + (1.7 - 0.5 * power) * math.exp(-step / 40) - 0.4 * power + draw.gauss(0, 0.05)}
        for step in range(1, 151, 2)
    ]
    return {"train_seconds": seconds, "block_seconds": [seconds / 5] * 5, "tokens": 10**6, "tokens_per_second": 1e6 / seconds,
            "steps": 150, "lr": 2e-4, "batch_size": 16, "seed": 0, "samples": 2400, "final_loss": 1.1, "curve": "converged",
            "curve_points": curve, "peak_gpu_allocated_bytes": int(draw.uniform(3, 17) * 2**30)}  # fmt: skip


def _inference(decode: float, times: list[float]) -> dict[str, Any]:
    rates = {f"{name}_{p}": value for name, value in (("prefill_seconds", 0.02), ("decode_seconds_per_token", decode))
             for p in ("p50", "p90", "p99")}  # fmt: skip
    return {"load_seconds": 1.2, "prompt_tokens": 512, "new_tokens": 64, "batch_size": 1, "warmup": 2, "repeats": 3,
            "raw_seconds": {}, "raw_summary": {"decode": times}, **rates}  # fmt: skip


def _samples(task: str, names: list[str], seed: int) -> dict[str, Any]:
    prompts = [
        {
            "id": str(n),
            "prompt": f"Question {n} of {task}? " + "Lily has 42 apples. " * 6,
            "target": "38",
            "output": "55",
            "score": 0,
        }
        for n in range(6)
    ]
    outputs = [
        {"id": str(n), "kind": ("won", "lost")[n % 2], "output": f"answer {n + seed}", "score": 1} for n in range(6)
    ]
    return {"task": task, "prompts": prompts,
            "variants": [{"variant": name, "won": 30, "lost": 12, "tied": 458, "outputs": outputs} for name in names[1:5]]}  # fmt: skip
