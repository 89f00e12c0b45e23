"""rsLoRA: LoRA scaled by alpha / sqrt(rank), so that large ranks learn as fast as small ones.

Paper: Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023 (arXiv 2312.03732). LoRA
divides by the rank, which removes the gain of high ranks. Keep `alpha` when you change the rank. At rank 64 the scale
equals LoRA's: 16 / sqrt(64) = 2.

Example:
    harness compare lora:rank=64 rslora rslora:rank=256
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import method
from harness.finetune._peft import add_lora

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-4, parameters="rank * (in + out) for each linear layer")
def rslora(
    model: Module,
    *,
    rank: int = 64,
    alpha: int = 16,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """LoRA with a scale that suits any rank; for high ranks."""
    return add_lora(
        model, rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, layers=layers, use_rslora=True
    )
