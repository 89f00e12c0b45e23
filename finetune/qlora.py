"""QLoRA: LoRA on a base in 4 bits (NF4 with double quantization) or in another quantized format.

Paper: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023 (arXiv 2305.14314). The base is quantized
before the method sees it, on CPU as on GPU; `optimizer=paged_adamw_8bit` is the paper's optimizer. `qlora@merged`
dequantizes, then merges: merging into 4-bit weights would lose most of the adapter to rounding.

Example:
    harness compare base lora qlora qlora@merged qlora:quant=int8
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from harness import method
from harness.finetune._peft import add_lora

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=2e-4, load="quant", parameters="rank * (in + out) for each linear layer")
def qlora(
    model: Module,
    *,
    rank: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    layers: Sequence[int] | None = None,
    quant: Literal["nf4", "nf4_single", "fp4", "fp4_single", "int8"] = "nf4",
) -> Module:
    """Low-rank matrices beside a base in the format `quant`; `_single`: scales stay in float32."""
    if not getattr(model, "is_quantized", False):
        raise ValueError(f"the base must be in {quant}, but it is not quantized")
    return add_lora(model, rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, layers=layers)
