"""LoRA: low-rank matrices beside frozen weights.

Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv 2106.09685). All linear layers by
default: attention only is worse even with as many parameters (Schulman et al., "LoRA Without Regret", 2025). The
baseline for the other parameter-efficient methods.

Example:
    harness compare base lora:rank=8 lora:rank=64 lora:target_modules=attention lora:layers=-1+-2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import method
from harness.finetune._peft import add_lora

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-4, parameters="rank * (in + out) for each linear layer")
def lora(
    model: Module,
    *,
    rank: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """Low-rank matrices beside every linear layer; `alpha` defaults to twice the rank."""
    return add_lora(model, rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, layers=layers)
