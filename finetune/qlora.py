"""QLoRA: LoRA on a base held in 4-bit NF4 with double quantization.

Paper: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023 (arXiv 2305.14314). The base is quantized
before the method sees it (`load="nf4"`), on CPU as on GPU. `qlora@merged` dequantizes, then merges: merging into 4-bit
weights would round the adapter away.

Example:
    harness compare base lora qlora qlora@merged
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import method

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-4, load="nf4")
def qlora(
    model: Module,
    *,
    rank: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
) -> Module:
    """Low-rank adapters on a base in 4-bit NF4; `alpha` defaults to twice the rank."""
    from peft import LoraConfig, get_peft_model

    targets = (
        target_modules if target_modules == "all-linear" or not isinstance(target_modules, str) else [target_modules]
    )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=targets,
    )
    adapted: Module = get_peft_model(model, config)
    return adapted
