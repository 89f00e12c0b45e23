"""MiSS: sums each layer's inputs in shards of `rank` and applies one small matrix to the sums.

Paper: Kang and Yin, "MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure", 2024 (arXiv
2409.15371). One matrix where LoRA has two. Among the best methods in peft's own comparison, as fast as LoRA.

Example:
    harness compare lora miss miss:rank=16
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-4, parameters="rank * out for each linear layer")
def miss(
    model: Module,
    *,
    rank: int = 64,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """One matrix of `rank` rows for each linear layer, shared by the shards of its inputs."""
    from peft import MissConfig

    return add_adapter(
        model,
        MissConfig,
        r=rank,
        miss_dropout=dropout,
        target_modules=linear_layers(model, target_modules, layers=layers, rank=rank),
    )
