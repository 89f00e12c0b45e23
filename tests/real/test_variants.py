"""`harness compare base lora qlora fewshot=base:shots=5` on a real model: every row is trained, scored and reported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from page import Page
from rows import lay_out

from harness.runs.folder import load_run

pytestmark = pytest.mark.real


def test_a_comparison_from_end_to_end(smollm2: Path, threads: str, tmp_path: Path, page: Page) -> None:
    rows = tmp_path / "rows"
    lay_out(rows)
    command = [
        sys.executable, "-m", "harness", "compare", "base", "lora", "qlora", "fewshot=base:shots=5",
        "-m", str(smollm2), "--train", "gsm8k", "--train-samples", "16", "--steps", "2", "--train-batch-size", "4",
        "-t", "gsm8k,hellaswag,wikitext", "-n", "2", "-f", "0", "--apply-chat-template", "--no-timing", "-o", str(tmp_path / "runs"),
    ]  # fmt: skip
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads, "COLUMNS": "100"}
    inherited = {name: value for name, value in os.environ.items() if name != "HARNESS_DATA"}
    done = subprocess.run(command, cwd=rows, env=inherited | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "runs").iterdir()
    run = load_run(folder)
    assert [(each.name, each.status) for each in run.variants] == [
        (name, "done") for name in ("base", "lora", "qlora", "fewshot")
    ]
    for variant in run.variants:
        assert {(score.task, score.n) for score in variant.scores} == {("gsm8k", 2), ("hellaswag", 2), ("wikitext", 2)}
        assert all(score.value == score.value for score in variant.scores)
    lora, qlora = run.variant("lora"), run.variant("qlora")
    assert lora.train and qlora.train and lora.train.steps == qlora.train.steps == 2
    assert qlora.model_bytes and lora.model_bytes and qlora.model_bytes < lora.model_bytes
    content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert content["schema"] == 1
    screen = done.stdout.partition("\nSaved ")[0]  # the folder is a temporary one
    page.write("A comparison", ["```text", *(line.rstrip() for line in screen.strip().splitlines()), "```"])
