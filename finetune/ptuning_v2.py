"""P-tuning v2: learned keys and values before the text in every layer, without a network that generates them.

Paper: Liu et al., "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across Scales and Tasks",
2021 (arXiv 2110.07602). The prompt method to try first: it saves as much as `prefix` and trains only what it saves. The
prefix starts as the model's keys and values of common words or of a text (`init=text,text=…`), or at random.

Example:
    harness compare base ptuning_v2 ptuning_v2:tokens=50
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness import method, starting_keys_and_values
from harness.finetune._peft import add_prefix

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-2, mergeable=False, checkpointing=False, padding="right", parameters="2 * tokens * kv for each layer")
def ptuning_v2(
    model: Module, *, tokens: int = 20, init: Literal["vocab", "text", "random"] = "vocab", text: str = ""
) -> Module:
    """Keys and values before the text in every layer; they start as words, as a text, or at random."""
    return add_prefix(model, starting_keys_and_values(model, tokens, init=init, text=text))
