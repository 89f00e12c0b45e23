"""VeRA: one pair of random matrices for the whole model and two trained vectors for each layer.

Paper: Kopiczko et al., "VeRA: Vector-based Random Matrix Adaptation", 2023 (arXiv 2310.11454). For many adapters on one
base: the vectors are very small. The random matrices are saved with them, so that the adapter works the same on every
machine.

Example:
    harness compare lora vera vera:rank=1024
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=4e-3, parameters="rank + out for each linear layer")
def vera(
    model: Module,
    *,
    rank: int = 256,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """Trained vectors around random matrices of rank `rank` that all layers share."""
    from peft import VeraConfig

    if rank < 1:
        raise ValueError(f"a rank of {rank} has nothing to train")
    return add_adapter(
        model,
        VeraConfig,
        r=rank,
        vera_dropout=dropout,
        target_modules=linear_layers(model, target_modules, layers=layers),
    )
