"""Bottleneck adapters: small two-layer networks after the sublayers of each decoder layer.

Papers: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019 (arXiv 1902.00751): after the attention
and after the feed-forward part; Pfeiffer et al., "AdapterFusion", 2020 (arXiv 2005.00247): after the feed-forward part
only, at half the cost. Adapters start as the identity. They are non-linear, so they cannot be merged and cost time at
every token.

Example:
    harness compare base adapter adapter:kind=pfeiffer,size=32
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from harness import UserError, decoder_layers, method


@method(lr=5e-4, load="quant", mergeable=False, parameters="2 * size * hidden + size + hidden for each bottleneck")
def adapter(
    model: Any,
    *,
    kind: Literal["houlsby", "pfeiffer"] = "houlsby",
    size: int | None = None,
    reduction: int = 16,
    activation: str = "gelu",
    quant: Literal["nf4", "nf4_single", "fp4", "fp4_single", "int8"] | None = None,
) -> Any:
    """Bottlenecks of `size` units (default: the model's width / `reduction`); `quant`: quantization of the base."""
    from transformers.activations import ACT2FN

    width = model.config.get_text_config().hidden_size
    size = width // max(1, reduction) if size is None else size
    if not 0 < size < width:
        raise UserError(f"a bottleneck of {size} units in a model of width {width}", hint=f"`size`: 1 to {width - 1}")
    if activation not in ACT2FN:
        raise UserError(f"unknown activation `{activation}`", hint="use one of " + ", ".join(sorted(ACT2FN)))
    model.requires_grad_(False)
    for layer in decoder_layers(model)[1]:
        attention, feedforward = _outputs(layer, width)
        for part in (attention, feedforward) if kind == "houlsby" else (feedforward,):
            if not part:
                missing = "feed-forward part" if part is feedforward else "attention"
                raise UserError(f"`{type(layer).__name__}` has no {missing} to put an adapter after", hint="try `lora`")
            part[-1].bottleneck = Bottleneck(width, size, ACT2FN[activation]).to(next(layer.parameters()).device)
            part[-1].register_forward_hook(_through_bottleneck)
    return model


class Bottleneck(nn.Module):
    """Adds a two-layer network's output to its input; the output is zero at the start."""

    def __init__(self, width: int, size: int, activation: nn.Module) -> None:
        super().__init__()
        self.down, self.activation, self.up = nn.Linear(width, size), activation, nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        added: Tensor = self.up(self.activation(self.down(hidden.to(self.down.weight.dtype))))
        return hidden + added.to(hidden.dtype)


def _through_bottleneck(module: Any, inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # a mixture of experts may also return its router's output
        return (module.bottleneck(output[0]), *output[1:])
    return module.bottleneck(output)


def _outputs(layer: nn.Module, width: int) -> tuple[list[Any], list[Any]]:
    """Finds modules as wide as the model, in the attention and elsewhere; a mixture of experts is one."""
    modules = dict(layer.named_modules())
    mixtures = tuple(f"{name}." for name, module in modules.items() if hasattr(module, "experts"))
    wide = {name for name, module in modules.items() if width in (vars(module).get(n) for n in ("out_features", "nf"))}
    found = [name for name in modules if f"{name}." in mixtures or (name in wide and not name.startswith(mixtures))]
    attention = [modules[name] for name in found if "att" in name]
    return attention, [modules[name] for name in found if "att" not in name]
