"""Real rows through the real loading code: GSM8K and MMLU from a local stand-in for the Hub."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from in_process import command
from tiny_models import save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from harness.prompts.render import render
from harness.registry.find import find
from harness.registry.load import load_task
from harness.results import Run
from harness.runs.folder import load_run

pytestmark = pytest.mark.hub

BRIEF = ["--steps", "2", "--train-batch-size", "4"]


def compare(folder: Path, *arguments: str) -> Run:
    """Runs the command in a process of its own: libraries read the Hub's address only when they are imported."""
    asked = command("compare", *arguments, "--format", "json")
    done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return Run.model_validate(json.loads(done.stdout))


@pytest.mark.slow
def test_real_questions_are_trained_on_and_scored(hub: str, tmp_path: Path) -> None:
    data = ["--train", "hub:openai/gsm8k:main", "--train-columns", "prompt=question,completion=answer"]
    run = compare(tmp_path, "base", "lora", *data, "--tasks", "mmlu", "--limit", "8", *BRIEF)
    lora = run.variant("lora")
    assert lora.status == "done" and lora.train is not None and 7400 < lora.train.samples <= 7473
    assert len(lora.scores[0].groups) == 8


def test_a_task_names_its_own_train_split(hub: str, tmp_path: Path) -> None:
    options = ["--train", "gsm8k", "--train-samples", "40", "--tasks", "mmlu:anatomy+virology", "--limit", "4"]
    run = compare(tmp_path, "base", "lora", *options, "-f", "1", *BRIEF)
    train = run.variant("lora").train
    assert train is not None and train.samples <= 40
    assert [score.protocol.shots for score in run.variant("base").scores] == [1]


@pytest.mark.slow
def test_loglikelihoods_of_200_real_questions_are_those_of_a_plain_forward(hub: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "llama", context=1024)
    options = ["--train", "gsm8k", "--train-samples", "64", "--steps", "8", "--lr", "1e-2", "--max-length", "256"]
    compare(tmp_path, "base", "lora", "qlora", "--model", str(model), "--tasks", "mmlu", "--limit", "200", *options)
    (folder,) = (tmp_path / "runs").iterdir()
    entry = find("task", "mmlu")
    items = {item.request.id: item for item in render("mmlu", load_task(entry, {}), limit=200)}
    tokenizer = AutoTokenizer.from_pretrained(model)
    for variant in load_run(folder).variants:
        plain = plain_model(model, folder, variant.name, variant.artifact.path if variant.artifact else None)
        worst = 0.0
        (log,) = (folder / "samples").glob(f"{variant.name}*/mmlu-*.jsonl")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        for row in rows:
            request = items[row["id"]].request
            for continuation, ours in zip(request.continuations, row["loglikelihoods"], strict=True):
                theirs = plain_loglikelihood(plain, tokenizer, request.contexts[0], continuation)
                worst = max(worst, abs(ours - theirs) / abs(theirs))
        print(f"\n{variant.name}: {len(rows)} questions, largest relative difference {worst:.1e}")
        assert len(rows) == 200 and worst < 1e-5


def plain_model(model: Path, folder: Path, name: str, artifact: str | None) -> torch.nn.Module:
    """Loads the variant with transformers and peft alone."""
    options = {}
    if name == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, **options)
    for module in loaded.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
    if artifact:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, folder / artifact)
    return loaded.eval()


@torch.inference_mode()
def plain_loglikelihood(model: torch.nn.Module, tokenizer: object, context: str, continuation: str) -> float:
    head = tokenizer(context)["input_ids"]  # type: ignore[operator]
    whole = tokenizer(context + continuation)["input_ids"]  # type: ignore[operator]
    ids = whole[-(model.config.max_position_embeddings + 1) :]  # type: ignore[union-attr]
    logits = model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    tail = whole[len(head) :]
    return float(sum(logits[len(ids) - 1 - len(tail) + i, t] for i, t in enumerate(tail)))
