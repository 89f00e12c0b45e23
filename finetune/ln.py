"""LN-tuning: trains the weights (and biases) of the norms only.

Paper: Zhao et al., "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning", 2023 (arXiv
2312.11420). Fewer parameters than almost any other method, and no cost at inference: the norms are part of the model,
so merging changes nothing.

Example:
    harness compare base ln:lr=3e-3 lora
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import UserError, method, norm_layers

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-3, parameters="width (twice with biases) of each norm")
def ln(model: Module) -> Module:
    """Trains the weights and biases of all norms."""
    norms = norm_layers(model)
    if not norms:
        raise UserError(f"`{type(model).__name__}` has no norms with weights", hint="train `bitfit` or `lora` instead")
    model.requires_grad_(False)
    for module in norms.values():
        module.requires_grad_(True)
    return model
