"""SHiRA: trains a few randomly chosen entries of each weight.

Paper: Bhardwaj et al., "Sparse High Rank Adapters", 2024 (arXiv 2406.13175). As many entries as a LoRA of that rank has
parameters, 1 to 2 % of the weights: updates of high rank that are fast to merge and unmerge.

Example:
    harness compare lora shira
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=3e-4, parameters="rank * (in + out) for each linear layer")
def shira(
    model: Module,
    *,
    rank: int = 16,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """Random entries of each weight, as many as a LoRA of `rank` has parameters; their positions are saved too."""
    from peft import ShiraConfig

    return add_adapter(
        model,
        ShiraConfig,
        r=rank,
        target_modules=linear_layers(model, target_modules, layers=layers, rank=rank),
    )
