"""Shared steps of the methods built on the peft library: add an adapter, a LoRA, a learned prompt or a learned prefix.

Only the built-in methods use this module. Your own method calls `get_peft_model` itself, as in finetune/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import UserError, expert_parameters, linear_layers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def add_adapter(model: Module, config: type[Any], **options: Any) -> Module:
    """Adds an adapter to a causal language model and freezes the rest.

    Args:
        model: The loaded base.
        config: A configuration class of peft, such as `VeraConfig`.
        options: Its keys, without `task_type`.
    """
    from peft import get_peft_model

    adapted: Module = get_peft_model(model, config(task_type="CAUSAL_LM", **options))
    return adapted


def add_lora(
    model: Module,
    *,
    rank: int,
    alpha: int | None,
    dropout: float,
    target_modules: str | Sequence[str],
    layers: Sequence[int] | None,
    **options: Any,
) -> Module:
    """Adds a LoRA to linear layers and experts, with the hyperparameters that the methods of the LoRA family share.

    Args:
        model: The loaded base.
        rank: Rows of the first matrix, columns of the second.
        alpha: Scale before the division by the rank; None: twice the rank.
        dropout: Probability that an input of the first matrix is set to 0.
        target_modules: Which linear layers: see `linear_layers`; `experts` names the experts of a mixture.
        layers: Which decoder layers; None: all.
        options: Further keys of `LoraConfig`, such as `use_dora=True`.
    """
    from peft import LoraConfig

    asked = [target_modules] if isinstance(target_modules, str) else target_modules
    linear = [name for name in asked if name != "experts"]
    if len(linear) < len(asked):
        options["target_parameters"] = expert_parameters(model, layers=layers, rank=rank)
        if not options["target_parameters"]:
            raise UserError("this model has no experts", hint="leave `experts` out of `target_modules`")
    return add_adapter(
        model,
        LoraConfig,
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=linear_layers(model, linear, layers=layers, rank=rank) if linear or not asked else [],
        **options,
    )


def add_prompt(model: Module, config: type[Any], start: Tensor, **options: Any) -> Module:
    """Adds a learned prompt that starts at given values.

    Args:
        model: The loaded base.
        config: A configuration class of peft whose prompt is one table of embeddings, such as `PromptTuningConfig`.
        start: `[tokens, width]`.
        options: Further keys of the configuration.
    """
    adapted = add_adapter(model, config, num_virtual_tokens=len(start), **options)
    encoder: Any = adapted.get_submodule("prompt_encoder.default")
    encoder.embedding.weight.data.copy_(start)
    return adapted


def add_prefix(model: Module, start: Tensor, *, prefix_projection: bool = False, **options: Any) -> Module:
    """Adds learned keys and values before the text in every layer; without a projection they start at given values.

    Args:
        model: The loaded base.
        start: `[tokens, layers, 2, heads, dimension]`, as `starting_keys_and_values` returns it.
        prefix_projection: Whether a network generates the keys and values during training; it starts at random.
        options: Further keys of `PrefixTuningConfig`.
    """
    from peft import PrefixTuningConfig

    tokens, layers, _, heads, dimension = start.shape
    shape = {"num_layers": layers, "num_attention_heads": heads, "token_dim": heads * dimension}
    if prefix_projection:
        return add_adapter(
            model, PrefixTuningConfig, num_virtual_tokens=tokens, prefix_projection=True, **shape, **options
        )
    return add_prompt(model, PrefixTuningConfig, start.flatten(1), **shape, **options)
