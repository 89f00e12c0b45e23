"""Prompt tuning: a few learned embeddings before the text; the model itself does not change.

Paper: Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", 2021 (arXiv 2104.08691). The smallest
artifacts of all methods. Close to full fine-tuning on models of ten billion parameters, well below it on small ones.
The prompt starts as words drawn from the vocabulary, as a given text (`init=text,text=…`, repeated to fill), or at
random.

Example:
    harness compare base prompt "prompt:init=text,text=Answer with a number."
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness import method, starting_embeddings
from harness.finetune._peft import add_prompt

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-2, mergeable=False, padding="right", parameters="tokens * hidden")
def prompt(
    model: Module, *, tokens: int = 20, init: Literal["vocab", "text", "random"] = "vocab", text: str = ""
) -> Module:
    """Learned embeddings of `tokens` tokens before the text; they start as words, as a text, or at random."""
    from peft import PromptTuningConfig

    return add_prompt(model, PromptTuningConfig, starting_embeddings(model, tokens, init=init, text=text))
