"""Merges an adapter into the weights while a variant is scored, and restores the weights bit-equal afterwards.

A LoRA that runs beside its layers adds many small matrix products; a merged model runs as fast as its base. The original
weights are copied and restored: subtracting the adapter would leave a rounding error that grows with every variant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

KINDS = frozenset({"LORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "HRA", "VERA", "FOURIERFT"})
"""PEFT types whose adapters only change the weights of single layers."""
_OUTSIDE = (
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
)
"""Options of an adapter that change something else too."""

Unmerge = Callable[[], None]


def merge_for_scoring(model: Any) -> Unmerge | None:
    """Merges a PEFT model's adapter into its base, in place, where scores change by rounding alone.

    This holds in float32, for adapters of `KINDS` on layers that share their weights with no other layer.

    Args:
        model: A variant's model, as it is attached.

    Returns:
        A function that restores the weights bit-equal; None if nothing was merged, and the model is unchanged.
    """
    config = getattr(model, "active_peft_config", None)
    if config is None or config.peft_type not in KINDS or getattr(config, "bias", "none") != "none":
        return None
    if any(getattr(config, option, None) for option in _OUTSIDE):
        return None
    layers = [module for module in model.modules() if hasattr(module, "get_base_layer")]
    weights = {w.data_ptr(): w for layer in layers for w in layer.get_base_layer().parameters(recurse=False)}
    uses = Counter(weight.data_ptr() for _, weight in model.named_parameters(remove_duplicate=False))
    if any(weight.dtype != torch.float32 or uses[key] > 1 for key, weight in weights.items()):
        return None
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def unmerge() -> None:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)
        for layer in layers:
            layer.merged_adapters.clear()

    try:
        for weight in weights.values():
            kept.append((weight, weight.detach().clone()))
        model.merge_adapter()
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError):  # no memory, or PEFT cannot merge this kind
        unmerge()
        return None
    return unmerge
