"""Merges an adapter into the weights of its base.

A base in 4 or 8 bits is dequantized first: merging into rounded weights would round most of the adapter away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from harness.errors import UserError
from harness.jobs import Recipe
from harness.models.reward_head import inner_model


def dequantize(base: Any) -> tuple[Any, list[str]]:
    """Dequantizes a base; its quantized layers become plain linear layers, as which its adapter was trained.

    Args:
        base: The base, quantized by bitsandbytes.

    Returns:
        The base, and the names of the layers that are `Conv1D` in its architecture (GPT-2), for `restore_conv1d`.
    """
    names = [name for name, module in base.named_modules() if getattr(module, "source_cls", None) is Conv1D]
    return base.dequantize(), names


def restore_conv1d(model: nn.Module, names: Sequence[str]) -> None:
    """Turns linear layers into the `Conv1D` of an architecture, whose weight is transposed: `[inputs, outputs]`."""
    for name in names:
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):  # a method put another layer there
            continue
        layer = Conv1D(linear.out_features, linear.in_features).to(linear.weight)
        layer.weight = nn.Parameter(linear.weight.detach().T.contiguous(), requires_grad=False)
        if linear.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        model.set_submodule(name, layer)


def merge_adapter(model: Any, recipe: Recipe) -> Any:
    """Merges a PEFT model's adapter into its base.

    Raises:
        UserError: The adapter cannot be merged, or it would change a weight that two layers share.
    """
    _refuse_shared_weights(model, recipe)
    try:
        if hasattr(model.base_model, "merge_and_unload"):
            return model.merge_and_unload()
        reason = "it does not change weights"
    except (NotImplementedError, ValueError) as error:
        reason = str(error)
    kind = model.active_peft_config.peft_type.value
    raise UserError(f"the {kind} adapter `{recipe.adapter}` cannot be merged: {reason}", hint="leave out `@merged`")


def weight_names(model: nn.Module) -> dict[int, list[str]]:
    """Names of all weights by address: layers that share a weight have one address, whatever the architecture says.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> list(weight_names(nn.ModuleList([layer, layer])).values())
        [['0.weight', '1.weight'], ['0.bias', '1.bias']]
    """
    found: dict[int, list[str]] = defaultdict(list)
    for name, weight in model.named_parameters(remove_duplicate=False):
        found[weight.data_ptr()].append(name)
    return dict(found)


def refuse_added_weights(merged: nn.Module, places: Collection[str], *, hint: str) -> None:
    """Refuses a merged model with weights that a checkpoint of the base's architecture would lose.

    Args:
        merged: The base with an adapter merged into its weights.
        places: Names of the base's weights.
        hint: For the error.

    Raises:
        UserError: Training added such weights.
    """
    added = merged.state_dict().keys() - places
    if added:
        raise UserError(f"training added weights that the model's architecture has no place for: {min(added)}", hint)


def untie_if_apart(model: Any) -> None:
    """Corrects the configuration of a model whose embedding and output head no longer share one weight.

    Loading ties them again wherever the configuration says so, and one of the two weights would be lost.
    """
    ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
    if len({end.weight.data_ptr() for end in ends}) > 1:
        for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
            if getattr(config, "tie_word_embeddings", False):
                config.tie_word_embeddings = False


def _refuse_shared_weights(model: Any, recipe: Recipe) -> None:
    """Refuses an adapter of one layer whose weight another layer has too: merging would change both."""
    inner = inner_model(model)
    names = weight_names(inner)
    adapted = [module for module in inner.modules() if hasattr(module, "get_base_layer")]
    for weight in (weight for module in adapted for weight in module.get_base_layer().parameters(recurse=False)):
        layers = [name.removesuffix(".weight").replace(".base_layer", "") for name in names.get(weight.data_ptr(), [])]
        if len(layers) > 1:
            raise UserError(
                f"the adapter `{recipe.adapter}` cannot be merged: it changes one of `{'`, `'.join(layers)}` alone, but they"
                " share one weight",
                hint="leave out `@merged`, or train without these layers among the target modules",
            )
