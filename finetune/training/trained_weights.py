"""The type in which trained weights are held: float32, or bfloat16 with `weights=bf16`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

TRAINED_DTYPE: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Types by the setting `weights`. Neighbouring numbers in bfloat16 differ by 1/256, and smaller updates of a weight are lost."""


def hold_trained(model: nn.Module, dtype: torch.dtype) -> None:
    """Converts the trained weights of a model; gradients and the optimizer's state have the type of the weights.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> hold_trained(layer, TRAINED_DTYPE["bf16"])
        >>> layer.weight.dtype
        torch.bfloat16
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
