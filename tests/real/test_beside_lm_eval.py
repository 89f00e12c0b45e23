"""SmolLM2 has the same prompts, log-likelihoods, texts and metrics here as in lm-evaluation-harness."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from page import Page
from rows import DATASETS, lay_out

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
HEAD = """| Task | Shots | Prompts | Engine | Samples | Likelihoods | Nats | Relative | Texts | Ours | lm-eval |
|---|--:|---|---|--:|--:|--:|--:|--:|---|---|"""


@pytest.fixture(scope="module")
def verdicts(smollm2: Path, threads: str, tmp_path_factory: pytest.TempPathFactory, page: Page) -> list[dict[str, Any]]:
    """Runs both sides in a process of their own, and writes the table."""
    pytest.importorskip("lm_eval", reason="real: `pip install -e '.[parity]'`")
    folder = tmp_path_factory.mktemp("beside")
    real = lay_out(folder / "rows")
    out = folder / "verdicts.jsonl"
    environment = {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent / "parity"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": threads,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, str(HERE / "beside.py"), str(folder / "rows"), str(smollm2), str(out)]
    inherited = {name: value for name, value in os.environ.items() if name != "HARNESS_DATA"}
    subprocess.run(command, env=inherited | environment, check=True)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    page.write("Beside lm-evaluation-harness", _table(found, real))
    return found


def test_both_sides_agree(verdicts: list[dict[str, Any]]) -> None:
    assert [(each["case"], each["engine"], each["difference"]) for each in verdicts if each["difference"]] == []
    assert len(verdicts) == 20  # 13 cases; those without shots on both engines


def test_answers_differ_among_samples(verdicts: list[dict[str, Any]]) -> None:
    """Agreement says little about a model that always answers the same, as this one does on MMLU as text."""
    found = {each["case"]: each["distinct"] for each in verdicts if each["engine"] == "auto"}
    assert all(count > 1 for case, count in found.items() if case.startswith(("hellaswag", "gsm8k")))


def _table(verdicts: list[dict[str, Any]], real: list[str]) -> list[str]:
    made = [name for name in DATASETS if name not in real]
    differing = sum(bool(each["difference"]) for each in verdicts)
    lines = [
        f"lm-evaluation-harness {version('lm_eval')}, transformers {version('transformers')}, torch {version('torch')}; "
        "float32, CPU. Rows are real for "
        + (", ".join(f"`{name}`" for name in real) or "no dataset")
        + "; made for the tests: "
        + ", ".join(f"`{name}`" for name in made)
        + ".",
        f"{len(verdicts)} comparisons of {sum(each['samples'] for each in verdicts)} samples: "
        + (f"{differing} differ." if differing else "all agree."),
        "",
        HEAD,
    ]
    for each in verdicts:
        task, shots, *chat = each["case"].split("-")
        texts = f"{each['equal_texts']}/{each['texts']}" if each["texts"] else ""
        distances = [f"{each[name]:.0e}" if each["loglikelihoods"] else "" for name in ("nats", "relative")]
        values = [
            " ".join(f"{name} {value:.6g}" for name, value in sorted(each[side].items())) if each["theirs"] else ""
            for side in ("ours", "theirs")
        ]
        cells = [task, shots, "chat" if chat else "text", each["engine"], str(each["samples"])]
        cells += [str(each["loglikelihoods"] or ""), *distances, texts, *values]
        lines.append("| " + " | ".join(cells) + " |")
        lines += [f"| | | | | | | | | | {each['difference']} | |"] if each["difference"] else []
    return lines
