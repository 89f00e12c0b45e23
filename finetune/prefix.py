"""Prefix tuning: learned keys and values before the text, in every layer, that a small network writes while training.

Paper: Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", 2021 (arXiv 2101.00190). More is learned
than by `prompt`, and every layer is told directly. The network (`projection`) steadies training and is thrown away after it. It
is large beside what is kept: over a hundred million parameters on a model of seven billion. `ptuning_v2` does without it.

Example:
    harness compare base prefix prefix:projection=false,init=vocab
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness import UserError, method, starting_keys_and_values
from harness.finetune._peft import add_prefix

if TYPE_CHECKING:
    from torch.nn import Module


@method(
    lr=5e-4,
    mergeable=False,
    checkpointing=False,
    padding="right",
    parameters="about (2 * layers + 1) * kv * width; 2 * tokens * kv for each layer are kept",
)
def prefix(
    model: Module,
    *,
    tokens: int = 20,
    projection: bool = True,
    width: int = 512,
    init: Literal["random", "vocab", "text"] = "random",
    text: str = "",
) -> Module:
    """Keys and values before the text in every layer, written by a network of `width` where `projection` is on."""
    if projection and init != "random":
        raise UserError(f"a prefix with a projection starts at random, not as `{init}`", hint="add `projection=false`")
    start = starting_keys_and_values(model, tokens, init=init, text=text)
    return add_prefix(model, start, prefix_projection=projection, encoder_hidden_size=width)
