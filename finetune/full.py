"""Full fine-tuning: trains every weight. The baseline for the other methods.

Learning rate: about a tenth of LoRA's (Schulman et al., "LoRA Without Regret", 2025).

Example:
    harness compare base full:lr=1e-5 --train gsm8k --tasks gsm8k
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import method

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-5, mergeable=False, saves="checkpoint", parameters="all")
def full(model: Module) -> Module:
    """Trains every weight; the artifact is a whole checkpoint."""
    return model.requires_grad_(True)
