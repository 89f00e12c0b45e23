"""RandLoRA: full-rank updates, as trained mixtures of random low-rank matrices.

Paper: Albert et al., "RandLoRA: Full-rank parameter-efficient fine-tuning of large models", 2025 (arXiv 2502.00987).
For tasks where LoRA's rank is too small; a smaller `rank` means more mixed matrices and more parameters. The random
matrices are saved with the adapter, so it is large on disk.

Example:
    harness compare lora:rank=64 randlora
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-4, parameters="m + m * ceil(m / rank) for each linear layer, m = min(in, out)")
def randlora(
    model: Module,
    *,
    rank: int = 32,
    scale: float = 20.0,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """Trained mixtures of random matrices of rank `rank`, multiplied by `scale`."""
    from peft import RandLoraConfig

    return add_adapter(
        model,
        RandLoraConfig,
        r=rank,
        randlora_alpha=round(scale * rank),
        randlora_dropout=dropout,
        target_modules=linear_layers(model, target_modules, layers=layers, rank=rank),
    )
