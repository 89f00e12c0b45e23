"""Layer freezing: trains the top layers and leaves the rest of the model unchanged.

Layers below the first trained one need no gradients, so training few layers costs little memory and time. Lee et al.,
"What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", 2019 (arXiv 1911.03090): a quarter of the layers
comes close to all of them. An artifact is as large as the weights that were trained; merging puts these weights into
the model.

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
    parameters="every weight of the top layers and the final norm (head, embeddings), or the parameters that match the pattern",
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
    """Trains the top `layers` and the final norm, or the parameters whose names match `pattern` (a regex)."""
    model.requires_grad_(False)
    if pattern is not None:
        trained = _matching(model, pattern)
    else:
        trained = _top(model, layers, norm=norm, head=head, embeddings=embeddings)
    for parameter in trained:
        if not parameter.is_floating_point():
            raise UserError(
                "the weights of a quantized base cannot be trained",
                hint="use `qlora`, which trains matrices beside them",
            )
        parameter.requires_grad_(True)
    return model


def _matching(model: Module, pattern: str) -> list[Tensor]:
    names = dict(model.named_parameters())
    try:
        trained: list[Tensor] = [parameter for name, parameter in names.items() if re.search(pattern, name)]
    except re.error as error:
        raise UserError(
            f"`{pattern}` is not a regular expression: {error}", hint="for example `pattern=down_proj`"
        ) from None
    if not trained:
        few = ", ".join([*names][:: len(names) // 4 or 1])
        raise UserError(f"no parameter name matches `{pattern}`", hint=f"some of the {len(names)} names: {few}")
    return trained


def _top(model: Any, layers: int, *, norm: bool, head: bool, embeddings: bool) -> list[Tensor]:
    stack, decoders = decoder_layers(model)
    if not 0 <= layers <= len(decoders):
        raise UserError(f"cannot train {layers} layers", hint=f"this model has {len(decoders)}")
    modules = list(decoders)[len(decoders) - layers :]
    if norm:  # except a norm of the embeddings, which is before the layers
        outside = (name for name in norm_layers(model) if not name.startswith(f"{stack}.") and "embed" not in name)
        modules += [model.get_submodule(name) for name in outside]
    modules += [model.get_output_embeddings()] * head + [model.get_input_embeddings()] * embeddings
    return [parameter for module in modules for parameter in module.parameters()]
