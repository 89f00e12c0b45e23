"""DoRA: trains the length of each row of a weight separately; LoRA changes the direction.

Paper: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024 (arXiv 2402.09353). Often a little better than
LoRA at small ranks. Training is slower and needs more memory; generation is several times slower until the adapter is
merged.

Example:
    harness compare lora dora dora@merged
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import method
from harness.finetune._peft import add_lora

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-4, parameters="rank * (in + out) + out for each linear layer")
def dora(
    model: Module,
    *,
    rank: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """LoRA on directions and a trained length for each output; `alpha` defaults to twice the rank."""
    return add_lora(
        model, rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, layers=layers, use_dora=True
    )
