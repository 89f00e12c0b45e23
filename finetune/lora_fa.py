"""LoRA-FA: LoRA with a fixed random first matrix; only the second matrix is trained.

Paper: Zhang et al., "LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning", 2023 (arXiv
2308.03303). The backward pass needs only the `rank` projections of a layer's input, not the input: for long sequences
without activation checkpointing. The random matrices are part of the adapter and are saved with it.

Example:
    harness compare lora lora_fa
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import method
from harness.finetune._peft import add_lora

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-3, parameters="rank * out for each linear layer")
def lora_fa(
    model: Module,
    *,
    rank: int = 32,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """LoRA with a frozen random first matrix; `alpha` defaults to twice the rank."""
    adapted = add_lora(model, rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, layers=layers)
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
    return adapted
