"""Lily: low-rank matrices that layers share, mixed anew for every token.

Paper: Zhong et al., "Low-Rank Interconnected Adaptation across Layers", 2024 (arXiv 2407.09946). Neighbouring layers share the
first matrix, all layers the second ones, whose mixture a router picks: a higher rank for the same parameters. As the mixture
depends on the token, it cannot be merged.

Not peft's Lily: that one averages the mixture over all tokens of a batch, so that what a model says depends on the texts
beside it and on words still to come. Here each token is routed by itself.

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
    """Shared low-rank matrices and a router; `stride` neighbouring layers share the first one."""
    if stride < 1 or matrices < 2:
        raise ValueError("`stride` is 1 or more, and there are 2 `matrices` or more to mix")
    names = linear_layers(model, target_modules, layers=layers, rank=rank)
    alike: dict[tuple[str, int, int], list[Any]] = {}
    for path, module in model.named_modules():
        if path in names or path.rpartition(".")[2] in names:
            conv = hasattr(module, "nf")  # GPT-2's transposed linear layer
            if not conv and not hasattr(module, "in_features"):
                raise ValueError(f"`{path}` is no linear layer, and only those are adapted")
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
    """What a layer adds to its output; nothing at the start."""

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
