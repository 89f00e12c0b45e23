"""Quantizes the weights of a checkpoint with torchao; inputs of the layers keep their precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, TorchAoConfig

from harness.errors import UserError
from harness.models.report import UNREADABLE, cannot_be_loaded

GROUP = 32
"""Weights that share a scale in 4 bits."""


def quantize_with_torchao(checkpoint: Path, kind: str, *, dtype: str, device: str, trust_remote_code: bool) -> Any:
    """Loads a checkpoint and quantizes its linear layers, except the output head.

    Args:
        checkpoint: Folder of the model.
        kind: `int8wo`: 8 bits, a scale for each row; `int4wo`: 4 bits, a scale for each group of 32 weights.
        dtype: Precision of everything else.
        device: Where the model runs.
        trust_remote_code: Whether the model's own code may run.

    Raises:
        UserError: No layer was quantized, or rows are not multiples of a group.
    """
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup

    settings = (
        Int8WeightOnlyConfig()
        if kind == "int8wo"
        else IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))  # type: ignore[attr-defined]
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            quantization_config=TorchAoConfig(settings),
            dtype=getattr(torch, dtype),
            device_map={"": device},
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
        )
    except (*UNREADABLE, AssertionError) as error:
        raise cannot_be_loaded(checkpoint, error) from error
    if not quantized_layers(model):
        raise UserError(
            f"torchao quantized no layer of the model to {kind}",
            hint=f"its linear layers need rows that are multiples of {GROUP} weights" if kind == "int4wo" else None,
        )
    return model.eval()


def quantized_layers(model: torch.nn.Module) -> int:
    """Counts the linear layers whose weights are in a class of torchao."""
    return sum(type(module.weight).__module__.startswith("torchao") for module in _linear(model))


def torchao_note(model: torch.nn.Module) -> str:
    """Says how many linear layers are quantized."""
    return f"{quantized_layers(model)} of {len(_linear(model))} linear layers are quantized"


def _linear(model: torch.nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
