"""Lily: low-rank matrices shared by layers and mixed for each token.

Paper: Zhong et al., "Low-Rank Interconnected Adaptation across Layers", 2024 (arXiv 2407.09946). Neighbouring layers
share the first matrix; all layers share the second ones, which a router mixes: a higher rank for the same number of
parameters. The mixture depends on the token, so it cannot be merged.

This is not peft's Lily, which averages the mixture over all tokens of a batch: there a model's output depends on the
other texts of the batch and on later tokens. Here each token is routed separately.

Example:
    harness compare lora lily lily:stride=4,matrices=4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from harness import linear_layers, method


@method(
    lr=3e-4, mergeable=False, parameters="rank * (in / stride + matrices * (out / depth + 1)) for each linear layer"
)
def lily(
    model: nn.Module,
    *,
    rank: int = 32,
    stride: int = 2,
    matrices: int = 2,
    scale: float = 1.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> nn.Module:
    """Shared low-rank matrices and a router; `stride` neighbouring layers share the first matrix."""
    if stride < 1 or matrices < 2:
        raise ValueError("`stride` must be 1 or more and `matrices` 2 or more")
    names = linear_layers(model, target_modules, layers=layers, rank=rank)
    alike: dict[tuple[str, int, int], list[Any]] = {}
    for path, module in model.named_modules():
        if path in names or path.rpartition(".")[2] in names:
            conv = hasattr(module, "nf")  # GPT-2's transposed linear layer
            if not conv and not hasattr(module, "in_features"):
                raise ValueError(f"`{path}` is not a linear layer; only linear layers can be adapted")
            sizes = (module.nx, module.nf) if conv else (module.in_features, module.out_features)
            alike.setdefault((path.rpartition(".")[2], *sizes), []).append(module)
    model.requires_grad_(False)
    for (_, inputs, outputs), group in alike.items():
        second = nn.Linear(matrices * rank, outputs, bias=False)
        nn.init.zeros_(second.weight)
        firsts = [nn.Linear(inputs, rank, bias=False) for _ in group[::stride]]
        for index, module in enumerate(group):
            module.lily = Mixture(firsts[index // stride], second, matrices, scale).to(next(module.parameters()).device)
            module.register_forward_hook(_with_mixture)
    return model


class Mixture(nn.Module):
    """Computes the term added to a layer's output; it is zero at the start."""

    def __init__(self, first: nn.Linear, second: nn.Linear, matrices: int, scale: float) -> None:
        super().__init__()
        self.first, self.second, self.scale = first, second, scale
        self.router = nn.Linear(first.out_features, matrices, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs.to(self.first.weight.dtype))
        shares = self.router(hidden).softmax(-1)
        spread = (shares[..., :, None] * hidden[..., None, :]).flatten(-2)  # [..., matrices * rank]
        added: Tensor = self.scale * self.second(spread)
        return added


def _with_mixture(module: Any, inputs: Any, output: Tensor) -> Tensor:
    adapted: Tensor = output + module.lily(inputs[0]).to(output.dtype)
    return adapted
