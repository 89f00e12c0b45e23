"""Adapters merged into the weights while a variant is scored, and taken out again to the bit.

A LoRA that runs beside its layers makes small matrix products many; merged, the model runs as fast as its base. What the
weights were is kept and put back: subtracting the adapter again would leave a residue that grows with every variant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

KINDS = frozenset({"LORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "HRA", "VERA", "FOURIERFT"})
"""PEFT's types whose adapters are changes of single layers' weights."""
_OUTSIDE = (
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
)
"""Options of an adapter that do more than that."""

Unfold = Callable[[], None]


def fold(model: Any) -> Unfold | None:
    """Merges a PEFT model's adapter into its base, in place, where that changes scores by no more than rounding does.

    That is in float32, for adapters of `KINDS` on layers whose weights no other layer shares.

    Args:
        model: A variant's model, as it is attached.

    Returns:
        What puts the weights back bit-equal; None where nothing was merged and the model is as it was.
    """
    config = getattr(model, "active_peft_config", None)
    if config is None or config.peft_type not in KINDS or getattr(config, "bias", "none") != "none":
        return None
    if any(getattr(config, option, None) for option in _OUTSIDE):
        return None
    layers = [module for module in model.modules() if hasattr(module, "get_base_layer")]
    weights = {id(w): w for layer in layers for w in layer.get_base_layer().parameters(recurse=False)}
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    if any(weight.dtype != torch.float32 or uses[key] > 1 for key, weight in weights.items()):
        return None
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def unfold() -> None:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)
        for layer in layers:
            layer.merged_adapters.clear()

    try:
        for weight in weights.values():
            kept.append((weight, weight.detach().clone()))
        model.merge_adapter()
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError):  # no room, or no merging of this kind
        unfold()
        return None
    return unfold
