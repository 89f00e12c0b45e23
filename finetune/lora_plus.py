"""LoRA+: LoRA with a higher learning rate for the second matrix than for the first.

Paper: Hayou et al., "LoRA+: Efficient Low Rank Adaptation of Large Models", 2024 (arXiv 2402.12354). With equal
learning rates, the matrix that starts at zero changes too slowly in wide models; the paper recommends a ratio near 16.
`lr` is the learning rate of the first matrix.

Example:
    harness compare lora lora_plus lora_plus:ratio=4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import method
from harness.finetune._peft import add_lora

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=5e-5, parameters="rank * (in + out) for each linear layer")
def lora_plus(
    model: Module,
    *,
    rank: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    ratio: float = 16.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """LoRA with `ratio` times the learning rate for its second matrix; `alpha` defaults to twice the rank."""
    if ratio <= 0:
        raise ValueError(f"`ratio` is {ratio:g}, so the second matrix would not learn: it must be above 0")
    adapted = add_lora(model, rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, layers=layers)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            parameter.lr_scale = ratio  # type: ignore[attr-defined]
    return adapted
