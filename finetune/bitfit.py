"""BitFit: trains the biases only.

Paper: Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
2021 (arXiv 2106.10199). For models that have biases, such as GPT-2, OPT, Qwen2 or Phi. Llama, Mistral and Qwen3 have
none: `add=true` gives every linear layer of the decoder a bias that starts at zero. The biases are part of the model,
so merging changes nothing.

Example:
    harness compare base bitfit:add=true lora
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import UserError, decoder_layers, method

if TYPE_CHECKING:
    from torch.nn import Module


@method(lr=1e-3, parameters="the biases that the model has (and with add: out for each linear layer without one)")
def bitfit(model: Module, *, add: bool = False) -> Module:
    """Trains all biases; `add` gives a bias to linear layers of the decoder that have none."""
    import torch
    from torch.nn import Linear, Parameter

    model.requires_grad_(False)
    if add:
        for module in decoder_layers(model)[1].modules():
            if isinstance(module, Linear) and module.bias is None:
                dtype = module.weight.dtype if module.weight.is_floating_point() else torch.float32
                module.bias = Parameter(torch.zeros(module.out_features, dtype=dtype, device=module.weight.device))
    biases = [parameter for name, parameter in model.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not biases:
        raise UserError(
            f"`{type(model).__name__}` has no biases to train",
            hint="`bitfit:add=true` gives its linear layers biases that start at zero",
        )
    for bias in biases:
        bias.requires_grad_(True)
    return model
