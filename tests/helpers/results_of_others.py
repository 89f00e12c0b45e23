"""Results as other tools write them, small and made here: lm-eval 0.4.13, inspect_ai, lighteval, PEFT, Every Eval Ever."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STAMP = "2026-11-27T19-13-59.595695"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lm_eval(
    folder: Path,
    scores: Mapping[str, Sequence[float]],
    *,
    model: str = "org/base",
    version: float = 1.0,
    shots: int = 0,
    prefix: str = "",
    samples: bool = True,
    groups: Mapping[str, Sequence[str]] | None = None,
    stamp: str = STAMP,
    date: float = 1795806851.0,
) -> Path:
    """Writes the results of tasks with `acc`, and their samples; `prefix` begins every prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        task: {"alias": task, "acc,none": sum(each) / len(each), "acc_stderr,none": 0.05}
        for task, each in scores.items()
    }
    for group, names in (groups or {}).items():
        whole = [score for name in names for score in scores[name]]
        results[group] = {"alias": group, "acc,none": sum(whole) / len(whole), "acc_stderr,none": 0.01}
    document = {
        "results": results,
        "group_subtasks": groups or {},
        "configs": {
            task: {"output_type": "multiple_choice", "dataset_path": "x", "metric_list": [{"metric": "acc"}]}
            for task in scores
        },
        "versions": dict.fromkeys(scores, version),
        "n-shot": dict.fromkeys(scores, shots),
        "higher_is_better": {task: {"acc": True} for task in scores},
        "n-samples": {task: {"original": len(each), "effective": len(each)} for task, each in scores.items()},
        "config": {"model": "hf", "model_args": {"pretrained": model}, "model_dtype": "torch.float32"},
        "date": date,
        "lm_eval_version": "0.4.13",
        "model_source": "hf",
        "model_name": model,
    }
    file = folder / f"results_{stamp}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    for task, each in scores.items() if samples else ():
        rows = [_lm_eval_row(task, index, score, prefix) for index, score in enumerate(each)]
        (folder / f"samples_{task}_{stamp}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    return file


def _lm_eval_row(task: str, index: int, score: float, prefix: str) -> dict[str, Any]:
    prompt = f"{prefix}{task} {index} ="
    answers = [["-1.0", "False"], ["-2.0", "False"]] if score else [["-2.0", "False"], ["-1.0", "False"]]
    return {
        "doc_id": index,
        "doc": {"q": index},
        "target": "0",
        "arguments": {f"gen_args_{n}": {"arg_0": prompt, "arg_1": word} for n, word in enumerate([" yes", " no"])},
        "resps": [[answer] for answer in answers],
        "filtered_resps": answers,
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": sha(f"{task} {index}"),
        "prompt_hash": sha(prompt),
        "target_hash": sha("0"),
        "acc": score,
    }


def inspect_log(model: str, values: Sequence[Any], *, epochs: int = 1, **changes: Any) -> dict[str, Any]:
    """A log of inspect_ai with one scorer; `values` are grades by document, then by epoch."""
    numbers = {"C": 1.0, "I": 0.0, "P": 0.5}
    graded = [numbers.get(value, value) for value in values]
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": "2026-11-27T19:21:48+00:00",
            "task": "doubles",
            "task_version": 0,
            "model": model,
            "dataset": {"name": "doubles"},
            "config": {"epochs": epochs},
            "packages": {"inspect_ai": "0.3.285"},
        },
        "results": {
            "scores": [
                {
                    "name": "match",
                    "scorer": "match",
                    "scored_samples": len(values) // epochs,
                    "params": {},
                    "metrics": {
                        "accuracy": {"name": "accuracy", "value": sum(graded) / len(graded)},
                        "stderr": {"name": "stderr", "value": 0.05},
                    },
                }
            ]
        },
        "samples": [
            {
                "id": f"q{index // epochs}",
                "epoch": index % epochs + 1,
                "input": f"{index // epochs} doubled",
                "target": "x",
                "messages": [
                    {"role": "user", "content": f"{index // epochs} doubled"},
                    {"role": "assistant", "content": "?"},
                ],
                "output": {"choices": [{"message": {"content": f"answer of {model}"}}]},
                "scores": {"match": {"value": value}},
            }
            for index, value in enumerate(values)
        ],
        **changes,
    }


def inspect_zip(file: Path, log: Mapping[str, Any], extra: Mapping[str, str] | None = None) -> Path:
    """Writes a log as a `.eval` file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("header.json", json.dumps({name: each for name, each in log.items() if name != "samples"}))
        for row in log["samples"]:
            opened.writestr(f"samples/{row['id']}_epoch_{row['epoch']}.json", json.dumps(row))
        for name, content in (extra or {}).items():
            opened.writestr(name, content)
    return file


def peft(
    name: str, right: int, *, created: str = "2026-08-01T00:00:00+00:00", forgetting: float | None = None
) -> dict[str, Any]:
    """The result of an experiment of PEFT's comparison, with `right` of 1,319 answers."""
    steps = [{"step": 250 * n, "train loss": 1 - 0.01 * n, "train samples": 1000 * n} for n in range(1, 21)]
    last = {
        "step": 5000,
        "test accuracy": right / 1319,
        "train loss": 0.6,
        "train samples": 20000,
        "train total tokens": 4198051,
    }
    return {
        "run_info": {
            "created_at": created,
            "experiment_name": name,
            "train_config": {
                "model_id": "meta-llama/Llama-3.2-3B",
                "dtype": "bfloat16",
                "batch_size": 4,
                "seed": 0,
                "optimizer_kwargs": {"lr": 1e-4},
            },
            "peft_config": {"peft_type": "LORA"},
        },
        "train_info": {
            "accelerator_memory_max": 22_273_851_392,
            "train_time": 1796.2,
            "file_size": 36_715_216,
            "num_trainable_params": 9_175_040,
            "num_total_params": 3_221_924_864,
            "status": "success",
            "metrics": [*steps, last | ({} if forgetting is None else {"forgetting": forgetting})],
        },
        "meta_info": {"package_info": {"peft-version": "0.21.0"}, "system_info": {"accelerator": "NVIDIA L40S"}},
    }


def lighteval(folder: Path, model: str, scores: Sequence[float]) -> Path:
    """Writes results and details of lighteval 0.13."""
    import pyarrow
    import pyarrow.parquet

    results, details = folder / "results" / model, folder / "details" / model / STAMP
    results.mkdir(parents=True)
    details.mkdir(parents=True)
    key = "arc:easy|0"
    document = {
        "config_general": {"lighteval_sha": "3fd15266", "model_config": {"dtype": "float32"}, "model_name": model},
        "results": {
            key: {"acc": sum(scores) / len(scores), "acc_stderr": 0.05},
            "all": {"acc": sum(scores) / len(scores)},
        },
        "versions": {key: 0},
    }
    file = results / f"results_{STAMP}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    rows = [
        {
            "doc": {"query": f"question {n}", "choices": ["a", "b"], "gold_index": 0, "id": str(n), "instruction": ""},
            "metric": {"acc": score},
            "model_response": {"input": f"question {n}", "text": ["a" if score else "b"]},
        }
        for n, score in enumerate(scores)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), details / f"details_{key}_{STAMP}.parquet")
    return file


def every_eval_ever(folder: Path, model: str, scores: Sequence[float] | None, value: float = 0.5) -> Path:
    """Writes aggregate scores in the schema 0.3.0, and samples if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "0b1e7b1c.json"
    document = {
        "schema_version": "0.3.0",
        "evaluation_id": f"sums/{model}/1795806851",
        "retrieved_timestamp": "1795806851",
        "source_metadata": {
            "source_type": "evaluation_run",
            "source_organization_name": "us",
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "helm", "version": "0.5.16"},
        "model_info": {"name": model, "id": model},
        "evaluation_results": [
            {
                "evaluation_result_id": "sums",
                "evaluation_name": "sums",
                "source_data": {"dataset_name": "sums", "source_type": "other"},
                "metric_config": {
                    "lower_is_better": False,
                    "metric_name": "exact_match",
                    "min_score": 0,
                    "max_score": 1,
                },
                "score_details": {
                    "score": sum(scores) / len(scores) if scores else value,
                    "uncertainty": {"standard_error": {"value": 0.05}, "num_samples": len(scores) if scores else 100},
                },
            }
        ],
    }
    file.write_text(json.dumps(document), encoding="utf-8")
    rows = [
        {
            "evaluation_name": "sums",
            "evaluation_result_id": "sums",
            "sample_id": str(n),
            "input": {"raw": f"question {n}", "reference": ["1"]},
            "output": {"raw": ["1" if score else "2"]},
            "evaluation": {"score": score, "is_correct": bool(score)},
        }
        for n, score in enumerate(scores or ())
    ]
    if rows:
        file.with_name(f"{file.stem}_samples.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    return file
