"""Finds the layers of a model that methods name: decoder layers, layer norms, linear layers.

Example:
    >>> linear_layers(model, "attention", rank=8)  # doctest: +SKIP
    ['q_proj', 'k_proj', 'v_proj', 'o_proj']
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch.nn import Module, ModuleList

ALL, ATTENTION, MLP = GROUPS = ("all-linear", "attention", "mlp")
EXPERTS = "experts"
"""Target of LoRA for the experts of a mixture, which are no linear layers (`expert_parameters`)."""
_ATTENTION = re.compile(r"(^|\.)\w*(attn|attention)\w*\.")


def decoder_layers(model: Module) -> tuple[str, ModuleList]:
    """Finds the stack of decoder layers, whatever the architecture calls it, and its name in the model.

    Raises:
        UserError: The model has no list of modules.

    Example:
        >>> decoder_layers(model)[0]  # doctest: +SKIP
        'model.layers'
    """
    from torch.nn import ModuleList

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, ModuleList) and len(module)]
    stacks = [  # without the experts inside a layer, which may outnumber the layers
        (name, module) for name, module in lists if not any(name.startswith(f"{outer}.") for outer, _ in lists)
    ]
    if not stacks:
        raise UserError(f"`{type(model).__name__}` has no stack of decoder layers", hint="name the modules instead")
    return max(stacks, key=lambda stack: (len(stack[1]), -stack[0].count(".")))


def norm_layers(model: Module) -> dict[str, Module]:
    """Layer norms of any kind that have weights, by name.

    Example:
        >>> list(norm_layers(model))[-1]  # doctest: +SKIP
        'model.norm'
    """
    return {
        name: module
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and [*module.parameters(recurse=False)]
    }


def linear_layers(
    model: Module,
    which: str | Sequence[str] = ALL,
    *,
    layers: Sequence[int] | None = None,
    rank: int | None = None,
) -> list[str]:
    """Names of linear layers for peft's `target_modules`: name endings where they are unambiguous, else full names.

    Args:
        model: The loaded base, quantized or not.
        which: `all-linear`: all linear layers but the output head, routers, and layers that an adapter cannot reach;
            `attention` or `mlp`: those of the decoder layers that belong to it; else names or name endings such as `q_proj`,
            which may also name the head and embeddings. Several: their union.
        layers: Take only these decoder layers, counted from 0, or from the end with -1, -2 ….
        rank: Refuse layers that are smaller than this.

    Raises:
        UserError: There is no such module or layer, or a layer is smaller than `rank`.
    """
    modules = _modules(model)
    asked = [which] if isinstance(which, str) else which
    if EXPERTS in asked:
        raise UserError(
            "experts are parameters with three dimensions, which this method does not adapt",
            hint="`lora`, `rslora` and `qlora` do: `lora:target_modules=all-linear+experts`",
        )
    wanted = {name for part in asked for name in (_group if part in GROUPS else _named)(model, part, modules)}
    chosen = [name for name in modules if name in wanted]
    if layers is not None:
        chosen = _within(model, chosen, layers)
    if not chosen:
        place = "this model" if layers is None else f"the decoder layers {', '.join(map(str, layers))}"
        raise UserError(f"`{which}` names no linear layer of {place}", hint="known: " + _ends(modules))
    if rank is not None:
        _refuse_rank(rank, {name: modules[name] for name in chosen})
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in chosen))
    meant = {name for name, _ in model.named_modules() if any(_is_end(end, name) for end in ends)}
    return ends if meant == set(chosen) else chosen


def expert_parameters(model: Module, *, layers: Sequence[int] | None = None, rank: int | None = None) -> list[str]:
    """Names of the parameters that hold the experts of a mixture, for peft's `target_parameters`.

    Args:
        model: The loaded base.
        layers: Take only these decoder layers, as in `linear_layers`.
        rank: Refuse experts that are smaller than this.

    Returns:
        An empty list for a dense model.

    Raises:
        UserError: There is no such decoder layer, or an expert is smaller than `rank`.

    Example:
        >>> expert_parameters(model)  # doctest: +SKIP
        ['model.layers.0.mlp.experts.gate_up_proj', 'model.layers.0.mlp.experts.down_proj', …]
    """
    found = {
        f"{name}.{own}": (weight.shape[1], weight.shape[2])
        for name, module in model.named_modules()
        if "expert" in type(module).__name__.lower()
        for own, weight in module.named_parameters(recurse=False)
        if weight.dim() == 3
    }
    chosen = list(found) if layers is None else _within(model, list(found), layers)
    if rank is not None and chosen:
        _refuse_rank(rank, {name: found[name] for name in chosen})
    return chosen


def _modules(model: Module) -> dict[str, tuple[int, int]]:
    """Numbers of inputs and outputs of every linear layer and embedding, by name."""
    from torch.nn import Embedding, Linear
    from transformers.pytorch_utils import Conv1D

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[name] = (module.nx, module.nf)
        elif isinstance(module, Embedding):
            found[name] = (module.num_embeddings, module.embedding_dim)
        elif hasattr(module, "qweight"):  # linear layers of GPTQ, AWQ …
            found[name] = (module.in_features, module.out_features)
    return found


def _group(model: Any, which: str, modules: dict[str, Any]) -> list[str]:
    from torch.nn import Embedding

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    named = dict(model.named_modules())
    left = _routers(named) | bypassed_layers(model) | _diverted(model, modules)
    linear = [
        name
        for name in modules
        if named[name] is not head and not isinstance(named[name], Embedding) and name not in left
    ]
    if which == ALL:
        return linear
    stack = decoder_layers(model)[0]
    inside = [name for name in linear if name.startswith(stack + ".")]
    return [name for name in inside if bool(_ATTENTION.search(name[len(stack) :])) == (which == ATTENTION)]


def _routers(named: dict[str, Module]) -> set[str]:
    """Linear layers that choose or weigh experts: too small for an adapter, and some return tuples (Llama 4, Phi-MoE)."""
    return {
        name
        for name, module in named.items()
        if "router" in type(module).__name__.lower()
        or (name.endswith(("gate", ".router")) and f"{name.rpartition('.')[0]}.experts" in named)
    }


def bypassed_layers(model: Module) -> set[str]:
    """Names of linear layers of state-space mixers (Mamba, Jamba …) that compute with `layer.weight`, past the layer.

    Their fast kernels, and for some layers the slow path, never call the layer: an adapter beside it has no effect (peft
    refuses the best known ones), and a packed weight is taken for a plain one.
    """
    found = set()
    for name, module in model.named_modules():
        if "A_log" in module._parameters:
            source = inspect.getsource(type(module))
            found |= {f"{name}.{child}" for child, _ in module.named_children() if f"self.{child}.weight" in source}
    return found


def _diverted(model: Any, modules: Iterable[str]) -> set[str]:
    """Linear layers of mixtures (DeepSeek-V3, GLM-4 …) whose names peft takes for those of experts in transformers 4.

    Named as targets, dense and shared MLP layers would stay as they are, and the experts get the adapter instead.
    """
    from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING

    kind = _MODEL_TO_CONVERSION_PATTERN.get(getattr(getattr(model, "config", None), "model_type", None))
    old_names = _MOE_TARGET_MODULE_MAPPING.get(kind, {})
    return {module for module in modules if module.rpartition(".")[2] in old_names}


def _named(model: Module, name: str, modules: dict[str, Any]) -> list[str]:
    found = [module for module in modules if _is_end(name, module)]
    if not found:
        known = sorted({module.rpartition(".")[2] for module in modules})
        hint = did_you_mean(name, [*GROUPS, EXPERTS, *known])
        raise UserError(f"the model has no linear module `{name}`", hint=hint)
    if diverted := _diverted(model, found):
        raise UserError(
            f"peft takes `{name}` for the experts of this architecture: `{min(diverted)}` would stay as it is",
            hint="name `experts`, `attention` or `all-linear`",
        )
    return found


def _is_end(name: str, module: str) -> bool:
    return module == name or module.endswith("." + name)


def _ends(modules: dict[str, Any]) -> str:
    return ", ".join([*GROUPS, *dict.fromkeys(module.rpartition(".")[2] for module in modules)])


def _within(model: Module, chosen: Sequence[str], layers: Sequence[int]) -> list[str]:
    name, stack = decoder_layers(model)
    for layer in layers:
        if not -len(stack) <= layer < len(stack):
            raise UserError(
                f"the model has no decoder layer {layer}",
                hint=f"it has {len(stack)} layers: 0 to {len(stack) - 1}, or -1 to -{len(stack)} from the end",
            )
    starts = tuple(f"{name}.{layer % len(stack)}." for layer in layers)
    return [module for module in chosen if module.startswith(starts)]


def _refuse_rank(rank: int, chosen: dict[str, tuple[int, int]]) -> None:
    if rank < 1:
        raise UserError(f"a rank of {rank} has nothing to train", hint="set `rank` to 1 or more")
    name, size = min(chosen.items(), key=lambda item: min(item[1]))
    if rank > min(size):
        raise UserError(
            f"rank {rank} is larger than layer `{name}`, which has {size[0]} inputs and {size[1]} outputs",
            hint=f"set `rank` to {min(size)} or less, or leave that layer out with `target_modules`",
        )
