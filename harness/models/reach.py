"""The share of a model's weights that an adapter reaches, and the experts that it leaves as they are.

The experts of a mixture are parameters with three dimensions, not linear layers: `all-linear` adapts attention alone, which is
a few percent of the weights of a large mixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.models.layers import bypassed_layers, expert_parameters

_FEW = 0.5
"""Share below which the reach is noted."""


@dataclass(frozen=True)
class LayerWeights:
    """Sizes of a base's weights between its embeddings and its output head."""

    sizes: Mapping[str, int]
    experts: frozenset[str]

    @property
    def total(self) -> int:
        """Number of weights."""
        return sum(self.sizes.values())

    def share(self, names: Iterable[str]) -> float:
        """Share of some of the weights."""
        return sum(self.sizes.get(name, 0) for name in set(names)) / max(1, self.total)


def layer_weights(base: Any) -> LayerWeights:
    """Measures the weights of a base, before a method changes it; a packed weight counts with its unpacked size."""
    head = base.get_output_embeddings()
    sizes = {
        f"{name}.{own}": _numel(weight)
        for name, module in base.named_modules()
        if module is not head and not isinstance(module, nn.Embedding)
        for own, weight in module.named_parameters(recurse=False)
    }
    return LayerWeights(sizes, frozenset(expert_parameters(base)))


def reached_share(weights: LayerWeights, model: Any) -> float | None:
    """Share of the weights beside which a PEFT model has an adapter; None for other methods.

    Args:
        weights: Of the base.
        model: What the method made of it.
    """
    tuner = getattr(model, "base_model", None)
    modules = set(getattr(tuner, "targeted_module_names", ()))
    parameters = set(getattr(tuner, "targeted_parameter_names", ()))
    if not modules and not parameters:
        return None
    return weights.share(name for name in weights.sizes if name.rpartition(".")[0] in modules or name in parameters)


def trained_share(weights: LayerWeights, model: Any) -> float | None:
    """Share of the weights that a method adapts or trains; None for a method that only adds weights of its own.

    Args:
        weights: Of the base.
        model: What the method made of it.
    """
    adapted = reached_share(weights, model)
    if adapted is not None:
        return adapted
    share = weights.share(name for name, weight in model.named_parameters() if weight.requires_grad)
    return share or None


def reach_note(weights: LayerWeights, model: Any, hyperparameters: Mapping[str, Any]) -> str | None:
    """Describes what an adapter leaves as it is; None if it reaches half of the weights or more.

    Args:
        weights: Of the base.
        model: What the method made of it.
        hyperparameters: The method's.
    """
    share = reached_share(weights, model)
    if share is None or share >= _FEW:
        return None
    note = f"reaches {share:.0%} of the weights between embeddings and output head"
    adapted = getattr(model.base_model, "targeted_parameter_names", ())
    if not weights.experts or not weights.experts.isdisjoint(adapted):
        return note
    note += f": the experts ({weights.share(weights.experts):.0%}) stay as they are"
    known = "target_modules" in hyperparameters
    return note + "; LoRA adapts them with `target_modules=all-linear+experts`" if known else note


def unquantized_notes(base: Any) -> list[str]:
    """Describes what stays in full precision in a quantized base: experts, and layers whose weight a mixer reads."""
    weights, notes = layer_weights(base), []
    if weights.experts:
        notes.append(
            f"the experts ({weights.share(weights.experts):.0%} of the weights between embeddings and output head) are not"
            " quantized: bitsandbytes packs linear layers only"
        )
    if bypassed := bypassed_layers(base):
        ends = sorted({f"`{name.rpartition('.')[2]}`" for name in bypassed})
        share = weights.share(name for name in weights.sizes if name.rpartition(".")[0] in bypassed)
        notes.append(
            f"{', '.join(ends)} ({share:.0%} of the weights between embeddings and output head) are not quantized: the"
            " state-space mixer reads their weights past the layer"
        )
    return notes


def _numel(weight: Tensor) -> int:
    state = getattr(weight, "quant_state", None)
    return int(state.shape.numel()) if state is not None else weight.numel()
