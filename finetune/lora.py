"""LoRA: low-rank matrices beside frozen weights.

Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv 2106.09685). All linear layers by
default: attention alone loses even at equal parameters (Schulman et al., "LoRA Without Regret", 2025).

Example:
    harness compare base lora:rank=8 lora:rank=64
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import method

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-4)
def lora(
    model: Module,
    *,
    rank: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
) -> Module:
    """Low-rank adapters on every linear layer; `alpha` defaults to twice the rank."""
    from peft import LoraConfig, get_peft_model

    targets = (
        target_modules if target_modules == "all-linear" or not isinstance(target_modules, str) else [target_modules]
    )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=targets,
    )
    adapted: Module = get_peft_model(model, config)
    return adapted
