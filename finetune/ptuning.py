"""P-tuning: learned embeddings before the text that a small network writes while training.

Paper: Liu et al., "GPT Understands, Too", 2021 (arXiv 2103.10385). The network (an MLP, or a bidirectional LSTM and an MLP)
ties the embeddings together, which steadies training; only what it writes is kept, so the artifact is as small as `prompt`'s
although far more is trained.

Example:
    harness compare base ptuning ptuning:encoder=lstm
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness import method, starting_embeddings
from harness.finetune._peft import add_adapter

if TYPE_CHECKING:
    from torch.nn import Module


@method(
    lr=1e-3, mergeable=False, padding="right", parameters="tokens * hidden, and the encoder's; tokens * hidden are kept"
)
def ptuning(
    model: Module, *, tokens: int = 20, encoder: Literal["mlp", "lstm"] = "mlp", width: int | None = None
) -> Module:
    """Embeddings before the text, written by an MLP or an LSTM of `width` (the model's, unless given)."""
    from peft import PromptEncoderConfig

    start = starting_embeddings(model, tokens)
    return add_adapter(
        model,
        PromptEncoderConfig,
        num_virtual_tokens=tokens,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=width or start.shape[1],
    )
