"""OFT: rotates blocks of each layer's inputs by trained orthogonal matrices.

Papers: Qiu et al., "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", 2023 (arXiv 2306.07280); Qiu et al.,
"Orthogonal Finetuning Made Scalable", 2025 (arXiv 2506.19847), which is the form used here. The lengths of neurons
and the angles between them do not change: for keeping the base's knowledge.

Example:
    harness compare lora oft oft:block_size=16
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-3, parameters="in * (block_size - 1) / 2 for each linear layer")
def oft(
    model: Module,
    *,
    block_size: int = 32,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """Trained rotations of blocks of `block_size` inputs, or of the nearest size that divides a layer's inputs."""
    from peft import OFTConfig

    return add_adapter(
        model,
        OFTConfig,
        r=0,
        oft_block_size=block_size,
        module_dropout=dropout,
        target_modules=linear_layers(model, target_modules, layers=layers),
    )
