"""The table of reached weights in finetune/README.md is what the methods reach on models of these shapes."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from transformers import GPT2Config, LlamaConfig, MixtralConfig, PretrainedConfig, Qwen3MoeConfig

from harness.config.parse import configure
from harness.finetune.training.memory import shares
from harness.models.load import method_function

README = Path(__file__).parents[2] / "finetune" / "README.md"
LLAMA = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
CONFIGS: dict[str, tuple[type[PretrainedConfig], dict[str, Any], int]] = {
    # class, sizes of the real model, its layers
    "Llama-3.1-8B": (LlamaConfig, {**LLAMA, "vocab_size": 128256}, 32),
    "Mixtral-8x7B": (MixtralConfig, {**LLAMA, "vocab_size": 32000, "num_local_experts": 8}, 32),
    "Qwen3-30B-A3B": (
        Qwen3MoeConfig,
        {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "vocab_size": 151936,
        },
        48,
    ),
    "GPT-2": (GPT2Config, {}, 12),
}


def table() -> dict[str, list[str]]:
    """The cells of the README's table, by variant."""
    text = README.read_text(encoding="utf-8")
    head = "| variant | " + " | ".join(CONFIGS) + " |"
    rows = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {variant: row for names, *row in cells for variant in re.findall(r"`([^`]+)`", names)}


def cell(share: float | str | None) -> str:
    if isinstance(share, str):
        return "refused"
    if share is None:
        return "own"
    return f"{share:.0%}".replace("%", " %") if share >= 0.005 else "<1 %"


@pytest.mark.parametrize("model", CONFIGS)
def test_the_table_is_what_the_methods_reach(model: str) -> None:
    kind, sizes, layers = CONFIGS[model]
    column = list(CONFIGS).index(model)
    for variants, count in (([v for v in table() if v != "freeze"], 2), (["freeze"], layers)):
        # all layers of these models are alike, so two have the shares of all; `freeze` trains a number of layers
        config = kind(**sizes, num_hidden_layers=count)
        specs = [configure([variant]).variants[0] for variant in variants]
        methods = [
            (
                partial(method_function(tiny.built_in(spec.entry.name)), **spec.hyperparameters),
                spec.entry.quantization(spec.hyperparameters),
            )
            for spec in specs
            if spec.entry is not None
        ]
        found = [cell(share) for share in shares(config, methods, dtype=torch.bfloat16)]
        assert dict(zip(variants, found, strict=True)) == {v: table()[v][column] for v in variants}
