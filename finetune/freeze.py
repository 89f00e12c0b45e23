"""Layer freezing: the upper layers are trained, the rest of the model stays as it is.

What is below the first trained layer needs no gradients, so few layers cost little memory and time. Lee et al., "What Would
Elsa Do? Freezing Layers During Transformer Fine-Tuning", 2019 (arXiv 1911.03090): a quarter of the layers comes close to all
of them. Artifacts are as large as the weights they train; merging is putting them in their places.

Example:
    harness compare base freeze freeze:layers=4,head=true freeze:pattern=down_proj
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from harness import UserError, decoder_layers, method, norm_layers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@method(
    lr=5e-5,
    parameters="every weight of the top layers and the final norm (head, embeddings), or what the pattern finds",
)
def freeze(
    model: Module,
    *,
    layers: int = 2,
    norm: bool = True,
    head: bool = False,
    embeddings: bool = False,
    pattern: str | None = None,
) -> Module:
    """The top `layers` and the final norm are trained; or the parameters in whose names `pattern` is found."""
    model.requires_grad_(False)
    if pattern is not None:
        trained = _matching(model, pattern)
    else:
        trained = _top(model, layers, norm=norm, head=head, embeddings=embeddings)
    for parameter in trained:
        if not parameter.is_floating_point():
            raise UserError(
                "weights of a quantized base cannot be trained themselves", hint="`qlora` trains beside them"
            )
        parameter.requires_grad_(True)
    return model


def _matching(model: Module, pattern: str) -> list[Tensor]:
    names = dict(model.named_parameters())
    try:
        trained: list[Tensor] = [parameter for name, parameter in names.items() if re.search(pattern, name)]
    except re.error as error:
        raise UserError(
            f"`{pattern}` is no regular expression: {error}", hint="for example `pattern=down_proj`"
        ) from None
    if not trained:
        few = ", ".join([*names][:: len(names) // 4 or 1])
        raise UserError(f"no parameter has `{pattern}` in its name", hint=f"some of the {len(names)}: {few}")
    return trained


def _top(model: Any, layers: int, *, norm: bool, head: bool, embeddings: bool) -> list[Tensor]:
    stack, decoders = decoder_layers(model)
    if not 0 <= layers <= len(decoders):
        raise UserError(f"cannot train {layers} layers", hint=f"this model has {len(decoders)}")
    modules = list(decoders)[len(decoders) - layers :]
    if norm:  # that of embeddings comes before the layers
        outside = (name for name in norm_layers(model) if not name.startswith(f"{stack}.") and "embed" not in name)
        modules += [model.get_submodule(name) for name in outside]
    modules += [model.get_output_embeddings()] * head + [model.get_input_embeddings()] * embeddings
    return [parameter for module in modules for parameter in module.parameters()]
