"""Measures every method on two models: its costs, its scores, and how exactly it is saved, detached and merged.

    python tests/perf/methods.py            # both tables, into tests/perf/METHODS.md; half an hour on two cores
    python tests/perf/methods.py --quick    # four methods, a few steps; prints, writes nothing

Costs and scores come from `harness compare` with every method's defaults. Differences are of logits, relative to the largest
logit: after training and after loading again; of the base, before attaching and after detaching the method; merged and
unmerged. The last one is of log-likelihoods, in a batch and one by one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.comparison.api import compare
from harness.config.parse import configure
from harness.engine.runner import Runner
from harness.finetune.training.trainer import run_training
from harness.jobs import Base, Method, Recipe, TaskRequests, TrainJob
from harness.models.load import Resident, context_length, load_base, method_function
from harness.prepare.prepare import prepare
from harness.registry.find import list_entries
from harness.registry.scan import Entry
from harness.report import numbers
from harness.report.scores import scale_of
from harness.results import Run, Variant
from harness.settings import TrainingSettings
from harness.tiny import MODEL
from harness.tokens.encode import Encoder
from harness.tokens.tokenizer import load_tokenizer

PAGE = Path(__file__).parent / "METHODS.md"
TASKS = ["mini_gsm8k", "mini_summary", "mini_mmlu", "mini_text"]
UNSUITED = {"bitfit": {"add": True}}
"""Hyperparameters that these models need, since they have no biases."""


@dataclass(frozen=True)
class Exactness:
    """Largest differences, relative to the largest logit; None if there is nothing to compare."""

    reload: float
    disable: float | None
    merge: float | None
    batch: float


def main() -> None:
    """Runs both models and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    entries = [entry for entry in list_entries("method") if entry.module and entry.name != "peft"]
    if quick:
        entries = [entry for entry in entries if entry.name in ("full", "lora", "bitfit", "prefix")]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shaped = save_qwen3(Path(folder) / "qwen3")
        parts = [
            section(
                "The embedded model", "tiny", MODEL, entries, steps=4 if quick else None, limit=8 if quick else 100
            ),
            section(
                "A random model of Qwen3's shape",
                str(shaped),
                shaped,
                entries,
                steps=4 if quick else 20,
                limit=8 if quick else 40,
            ),
        ]
    text = "# Methods, measured\n\nWritten by `python tests/perf/methods.py`.\n\n" + "\n".join(parts)
    if quick:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


def section(title: str, name: str, folder: Path, entries: Sequence[Entry], *, steps: int | None, limit: int) -> str:
    """One model's table."""
    settings: dict[str, Any] = {"steps": steps} if steps else {}
    specs = ["base", *(spec_of(entry) for entry in entries)]
    run = compare(*specs, model=name, tasks=TASKS, limit=limit, train=settings)
    head = ["method", "trained", "train", "tokens/s", "peak RSS", "on disk", "reload", "disable", "merge", "batch"]
    lines = [
        f"## {title}",
        "",
        facts(run, limit),
        "",
        row([*head, *TASKS]),
        row(["---", *["---:"] * (len(head) + len(TASKS) - 1)]),
    ]
    lines.append(row(["base", *["-"] * (len(head) - 1), *scores(run, run.variants[0])]))
    for entry, variant in zip(entries, run.variants[1:], strict=True):
        print(f"{title}: {entry.name}", file=sys.stderr)
        if variant.status != "done":
            lines.append(
                row([f"`{entry.name}`", variant.error or variant.status, *[""] * (len(head) + len(TASKS) - 2)])
            )
            continue
        found = exactness(entry, folder)
        lines.append(
            row([f"`{entry.name}`", *costs(variant), *map(formatted, vars(found).values()), *scores(run, variant)])
        )
    return "\n".join([*lines, ""])


def spec_of(entry: Entry) -> str:
    """The variant of a method, with the hyperparameters that these models need."""
    options = ",".join(f"{key}={str(value).lower()}" for key, value in UNSUITED.get(entry.name, {}).items())
    return f"{entry.name}={entry.name}:{options}" if options else entry.name


def facts(run: Run, limit: int) -> str:
    """One line on the machine and the settings of the run."""
    environment = run.environment
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    train = next(variant.train for variant in run.variants if variant.train)
    return (
        f"{environment['device_name']}, {environment['threads']} threads, {packages}; {train.steps} steps of"
        f" {train.batch_size} rows; {limit} samples a task, 95 % intervals in brackets."
    )


def costs(variant: Variant) -> list[str]:
    """Cells: trained share, seconds, tokens per second, memory, bytes."""
    train, parameters, artifact = variant.train, variant.parameters, variant.artifact
    assert train and parameters and artifact
    return [
        f"{100 * parameters.trainable / parameters.total:.3g} %",
        numbers.seconds(train.train_seconds),
        f"{train.tokens_per_second:,.0f}",
        numbers.peak(train.peak_rss_bytes),
        numbers.file_size(artifact.bytes),
    ]


def scores(run: Run, variant: Variant) -> list[str]:
    """Cells: headlines with their intervals."""
    cells = []
    for task in run.tasks:
        score = variant.headline(task)
        scale = scale_of(run, task.name, task.headline)
        cells.append("-" if score is None else f"{scale.value(score.value)} ({scale.interval(score.low, score.high)})")
    return cells


def exactness(entry: Entry, folder: Path) -> Exactness:
    """Trains ten steps in this process, then measures differences after saving, detaching, merging and batching."""
    config = configure(
        [spec_of(entry)], tasks=["mini_gsm8k"], train={"steps": 10, "batch_size": 4, "samples": 40}, limit=20
    )
    prepared = prepare(config)
    training = prepared.trainings[0]
    tokenizer = load_tokenizer(folder)
    with tempfile.TemporaryDirectory() as output:
        base = Base(folder, "cpu", "float32", entry.quantization(training.hyperparameters))
        method = Method(entry.name, entry.path, entry.module, training.hyperparameters)
        job = TrainJob(
            base=base,
            method=method,
            training=TrainingSettings(
                lr=training.settings.lr, steps=10, batch_size=4, micro_batch_size=4, max_length=512
            ),
            examples=training.data.examples,
            saves=training.saves,
            output=Path(output) / "artifact",
            log=Path(output) / "log.jsonl",
            state=Path(output) / "state",
            train_key="measured",
        )
        torch.manual_seed(0)
        model: Any = method_function(method)(load_base(base), **method.hyperparameters)
        options: dict[str, Any] = {"max_length": 512, "baseline_rss_bytes": 0, "on_step": lambda *_: None}
        run_training(job, model, tokenizer, **options)
        items = prepared.variants[0].items["mini_gsm8k"]
        requests = TaskRequests("mini_gsm8k", [item.request for item in items])
        ids = torch.tensor([tokenizer(items[0].request.contexts[0])["input_ids"]])
        trained = logits(model, ids)
        if training.saves == "checkpoint":
            recipe = Recipe(replace(base, folder=job.output))
        else:
            by_peft = (job.output / "adapter_config.json").is_file()
            recipe = Recipe(base, job.output, method=None if by_peft else method)
        one = Resident(recipe.base, method_function)
        untouched = logits(one.bare, ids)
        attached = one.attach(recipe)
        reloaded = logits(attached, ids)
        batch = batch_difference(attached, tokenizer, requests)
        one.detach()
        merged = None
        if entry.options["mergeable"] and training.saves == "delta":
            merged = logits(Resident(base, method_function).attach(replace(recipe, merged=True)), ids)
        return Exactness(
            reload=difference(reloaded, trained),
            disable=difference(logits(one.bare, ids), untouched) if training.saves == "delta" else None,
            merge=None if merged is None else difference(merged, reloaded),
            batch=batch,
        )


@torch.inference_mode()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """`[tokens, vocabulary]` after each token of a text."""
    model.eval()
    found: torch.Tensor = model(input_ids=ids, use_cache=True).logits[0, -ids.shape[1] :].float()
    return found


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest logit."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def batch_difference(model: Any, tokenizer: Any, asked: TaskRequests) -> float:
    """The largest relative difference of two answers' log-likelihoods, in packs and one by one."""
    choices = [
        replace(request, mode="choose", continuations=(" 7", " 12"), stop=(), max_tokens=0)
        for request in asked.requests
    ]
    encoded = Encoder(tokenizer, context_length(model, tokenizer)).encode(TaskRequests(asked.task, choices))
    found = []
    for engine in ("auto", "plain"):
        options: dict[str, Any] = {"numerics": "fp32", "token_budget": 512, "max_rows": None, "seed": 0}
        runner = Runner(model, tokenizer, engine=engine, **options)
        raws = [raw for pack in runner.plan(encoded) for raw in runner.run(pack)]
        found.append([raw.loglikelihoods for raw in sorted(raws, key=lambda raw: raw.index)])
    together, alone = (torch.tensor(each, dtype=torch.float64) for each in found)
    return float(((together - alone).abs() / alone.abs()).max())


def save_qwen3(folder: Path) -> Path:
    """A random model of Qwen3's shape with the embedded model's tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = load_tokenizer(MODEL)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def formatted(value: float | None) -> str:
    """Formats a difference: 0, or its order of magnitude."""
    return "-" if value is None else "0" if value == 0 else f"{value:.0e}"


def row(cells: Sequence[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
