"""AdaLoRA: LoRA as a singular value decomposition, with more rank in the layers where rank reduces the loss most.

Paper: Zhang et al., "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023 (arXiv 2303.10512).
Every layer starts at `init_rank`. The ranks that change the loss least are cut until the average over layers is `rank`.
A gain over LoRA needs a few hundred steps.

Example:
    harness compare lora adalora adalora:rank=4,init_rank=8
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import linear_layers, method
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-3, parameters="init_rank * (in + out + 1) for each linear layer; about rank / init_rank of this remains")
def adalora(
    model: Module,
    *,
    rank: int = 16,
    init_rank: int = 24,
    alpha: int | None = None,
    dropout: float = 0.0,
    orthogonality: float = 0.5,
    hold: float = 0.1,
    settle: float = 0.3,
    interval: int = 5,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
) -> Module:
    """LoRA whose ranks are cut from `init_rank` to `rank` on average; none in the first `hold` and last `settle` steps.

    Both are shares of the training run.
    """
    from peft import AdaLoraConfig

    if rank > init_rank:
        raise ValueError(f"`rank` {rank} is above `init_rank` {init_rank}; ranks are cut from `init_rank` to `rank`")
    if hold < 0 or settle < 0 or hold + settle >= 1:
        raise ValueError(f"`hold` {hold:g} and `settle` {settle:g}, as shares of the steps, leave none to cut in")
    return add_adapter(
        model,
        AdaLoraConfig,
        target_r=rank,
        init_r=init_rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        orth_reg_weight=orthogonality,
        total_step=1000,  # the trainer scales the schedule to the number of steps
        tinit=round(1000 * hold),
        tfinal=round(1000 * settle),
        deltaT=interval,
        target_modules=linear_layers(model, target_modules, layers=layers, rank=init_rank),
    )
