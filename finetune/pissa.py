"""PiSSA and OLoRA: LoRA that starts from a part of the weight instead of from zero.

Papers: Meng et al., "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models", 2024
(arXiv 2404.02948); Büyükakyüz, "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models", 2024 (arXiv
2406.01775). Both converge faster at first than LoRA: for short training runs.

The papers subtract that part from the weight. Then other adapters can no longer share the base, and in 16 bits the
parts do not add up to the original weight. Here the weight does not change: a second, frozen LoRA with the negative of
the start is added. Both are saved as one LoRA of twice the rank, for the original base.

Example:
    harness compare lora pissa olora -S steps=100
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@method(lr=1e-4, parameters="rank * (in + out) for each linear layer")
def pissa(
    model: Module,
    *,
    rank: int = 16,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """LoRA that starts as the largest singular vectors of each weight."""
    import torch

    def factors(weight: Tensor) -> tuple[Tensor, Tensor]:
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        root = s[:rank].sqrt()
        return root[:, None] * v[:rank], u[:, :rank] * root

    names = linear_layers(model, target_modules, layers=layers, rank=rank)
    return _from_weights(model, factors, r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules=names)


@method(lr=1e-4, parameters="rank * (in + out) for each linear layer")
def olora(
    model: Module,
    *,
    rank: int = 16,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """LoRA that starts as orthonormal columns of each weight (its QR decomposition)."""
    import torch

    def factors(weight: Tensor) -> tuple[Tensor, Tensor]:
        q, r = torch.linalg.qr(weight)
        return r[:rank], q[:, :rank]

    names = linear_layers(model, target_modules, layers=layers, rank=rank)
    return _from_weights(model, factors, r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules=names)


def _from_weights(model: Module, factors: Callable[[Tensor], tuple[Tensor, Tensor]], **options: Any) -> Module:
    """Adds a LoRA that starts at `second @ first`, and a frozen one that stays at its negative."""
    from peft import LoraConfig

    adapted: Any = add_adapter(model, LoraConfig, **options)
    adapted.add_adapter("start", LoraConfig(task_type="CAUSAL_LM", **options))
    for module in adapted.modules():
        if hasattr(module, "lora_A") and "start" in module.lora_A:
            weight = module.get_base_layer().weight.data.float()
            first, second = factors(weight.T if module.fan_in_fan_out else weight)
            for name, sign in (("default", 1), ("start", -1)):
                module.lora_A[name].weight.data.copy_(first)
                module.lora_B[name].weight.data.copy_(sign * second)
    adapted.base_model.set_adapter(["default", "start"])
    for name, parameter in adapted.named_parameters():
        if ".start." in name:
            parameter.requires_grad_(False)
    result: Module = adapted
    return result
